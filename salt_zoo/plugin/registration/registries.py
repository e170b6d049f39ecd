"""What plugins register parts in."""

from __future__ import annotations

from salt_zoo.plugin.registration.registry import Registry


class Registries:
    """One registry for each kind of part."""

    def __init__(self) -> None:
        self.methods = Registry("method", "methods")
        self.backbones = Registry("backbone", "backbones")
        self.sizes = Registry("size", "sizes")
        self.memories = Registry("memory", "memories")
        self.objectives = Registry("objective", "objectives")
        self.metrics = Registry("metric", "metrics")
        self.datasets = Registry("dataset", "datasets")
        self.recipes = Registry("recipe", "recipes")

    @property
    def registries(self) -> tuple[Registry, ...]:
        return (
            self.methods,
            self.backbones,
            self.sizes,
            self.memories,
            self.objectives,
            self.metrics,
            self.datasets,
            self.recipes,
        )
