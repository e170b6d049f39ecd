"""The types of a configuration's fields, also of those that a registered part brings: for `--set`,
whose values are text where the field is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from salt_zoo.config.overrides import Types
from salt_zoo.core.base.annotations import annotations_at
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import Registry


def types_of_run(zoo: Zoo) -> Types:
    """Of what `salt-zoo train` reads, and of its single parts, as in `{"backbone": ...}`."""

    def types(content: Mapping[str, Any], path: Sequence[int | str]) -> Sequence[Any]:
        return run_types(zoo, content, path)

    return types


def types_of_part(registry: Registry, name: str) -> Types:
    """Of the options of one part."""

    def types(content: Mapping[str, Any], path: Sequence[int | str]) -> Sequence[Any]:
        return part_types(registry, name, path)

    return types


def run_types(zoo: Zoo, content: Mapping[str, Any], path: Sequence[int | str]) -> Sequence[Any]:
    """The types at a path of a run's configuration; none where nothing is known."""
    from salt_zoo.config.run import RunConfig

    registries = {"method": zoo.methods, "backbone": zoo.backbones, "dataset": zoo.datasets}
    first, *rest = path
    if first in registries and rest:
        part = content.get(str(first))
        name = part.get("name") if isinstance(part, Mapping) else part
        return part_types(registries[str(first)], name, rest)
    return annotations_at(RunConfig, path)


def part_types(registry: Registry, name: Any, path: Sequence[int | str]) -> Sequence[Any]:
    """The types at a path of the options of the part `name`."""
    if path == ["name"]:
        return [str]
    if not isinstance(name, str) or name not in registry:
        return []
    try:
        model = registry[name].options_model()
    except ZooError:  # said when the part is configured
        return []
    return annotations_at(model, path)
