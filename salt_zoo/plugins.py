"""Finding plugins, keeping broken ones from doing harm, and the registries they fill."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from salt_zoo import hookspecs
from salt_zoo.errors import ZooError
from salt_zoo.registry import Registry

GROUP = "salt_zoo"


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be used, and why, in one line."""

    plugin: str
    reason: str


class Zoo:
    """All parts that the installed plugins registered, and their hooks."""

    def __init__(self) -> None:
        self.methods = Registry("method", "methods")
        self.backbones = Registry("backbone", "backbones")
        self.sizes = Registry("size", "sizes")
        self.memories = Registry("memory", "memories")
        self.objectives = Registry("objective", "objectives")
        self.metrics = Registry("metric", "metrics")
        self.datasets = Registry("dataset", "datasets")
        self.recipes = Registry("recipe", "recipes")
        self.broken: list[Broken] = []
        self.plugins: list[str] = []
        self._manager = pluggy.PluginManager("salt_zoo")
        self._manager.add_hookspecs(hookspecs)

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

    @property
    def hook(self) -> Any:
        """Calls the lifecycle hooks of every plugin."""
        return self._manager.hook

    def add_plugin(self, name: str, load: Callable[[], Any]) -> None:
        """Load and register one plugin; if it fails in any way, only `broken` grows."""
        try:
            plugin = load()
            if self._manager.register(plugin, name) is None:
                raise ValueError("it is blocked")
            if unknown := _misspelt(plugin):
                raise ValueError(f"there is no hook named {unknown!r}")
            if not self._manager.get_hookcallers(plugin):
                raise ValueError("it has no function marked with salt_zoo.hookimpl")
            others = [p for p in self._manager.get_plugins() if p is not plugin]
            for registry in self.registries:
                registry.plugin = name
            self._manager.subset_hook_caller("register", others)(zoo=self)
        except (Exception, SystemExit) as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            for registry in self.registries:
                registry.drop(name)
            text = " ".join(str(error).split()) or "no reason given"
            kind = type(error).__name__
            self.broken.append(Broken(name, f"{kind}: {text}"[:300]))
        else:
            self.plugins.append(name)


def _misspelt(plugin: Any) -> str | None:
    """The name of a hookimpl that matches no specification."""
    specified = {name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), "salt_zoo_spec")}
    for name in dir(plugin):
        if hasattr(getattr(plugin, name, None), "salt_zoo_impl") and name not in specified:
            return name
    return None


def load_zoo(extra: Sequence[str] = ()) -> Zoo:
    """The zoo of all installed plugins and of `extra` ones: module names or paths of `.py` files.

    Built-in plugins are loaded first, so that no other can take their names.

    Raises:
        ZooError: a plugin named in `extra` does not exist. (One that exists and is broken is
            listed in `Zoo.broken`, as an installed one would be.)
    """
    zoo = Zoo()
    points = list(importlib.metadata.entry_points(group=GROUP))
    points.sort(key=lambda point: (_distribution(point) != "salt-zoo", point.name))
    seen: set[str] = set()
    for point in points:
        if point.value not in seen:  # a second copy on the path is the same plugin
            seen.add(point.value)
            zoo.add_plugin(_free_name(zoo, point.name), point.load)
    for name in extra:
        zoo.add_plugin(_free_name(zoo, name), _named(name))
    return zoo


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    try:
        return str(point.dist.name) if point.dist else ""
    except Exception:  # damaged metadata of a foreign package
        return ""


def _free_name(zoo: Zoo, name: str) -> str:
    taken = {*zoo.plugins, *(broken.plugin for broken in zoo.broken)}
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} ({number})"
    return free


def _named(name: str) -> Callable[[], ModuleType]:
    """How to load what `-p name` names; a ZooError if there is nothing of that name."""
    path = Path(name)
    if name.endswith(".py") or path.is_file():
        if not path.is_file():
            raise ZooError(f"-p {name}: there is no such file")

        def load() -> ModuleType:
            module_name = f"salt_zoo_file_{path.stem}"
            spec = importlib.util.spec_from_file_location(module_name, path)
            if spec is None or spec.loader is None:
                raise ImportError(f"{path} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module  # dataclasses and pydantic look their module up
            spec.loader.exec_module(module)
            return module

        return load
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ZooError(f"-p {name}: no module of that name can be imported, and it is not a file")
    return lambda: importlib.import_module(name)
