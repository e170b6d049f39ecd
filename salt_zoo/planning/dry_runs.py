"""Dry runs of configured runs: one for all runs that differ in nothing that it sees."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from salt_zoo.config.run import Resolved
from salt_zoo.core.protocols import Backbone, Method
from salt_zoo.costs.passes import DryRun, Passes
from salt_zoo.plugin.isolation.checked_method import make_method
from salt_zoo.plugin.manager import Zoo


def planned_parts(run: Resolved, zoo: Zoo) -> tuple[Backbone, Method]:
    """Backbone and method of a run, for plans: runs with the same backbone share the object."""
    config = run.config
    backbone = _backbone(zoo, config.backbone["name"], run.backbone.model_dump_json())
    return backbone, make_method(config.method["name"], run.method, zoo)


@functools.lru_cache(maxsize=4)
def _backbone(zoo: Zoo, name: str, options: str) -> Backbone:
    """One object for all runs with the same backbone, whose measurements they share."""
    checked = zoo.backbones.configure(name, json.loads(options), "backbone")
    made: Backbone = zoo.backbones.create(name, checked, zoo)
    return made


def dry_run(run: Resolved, zoo: Zoo) -> DryRun:
    """The updates of a run without arithmetic: one object for all runs that differ in what no
    update's passes depend on."""
    config = run.config
    backbone: Any = _backbone(zoo, config.backbone["name"], run.backbone.model_dump_json())
    options = _Options(run.method.model_dump(mode="json"))
    return _dry(zoo, backbone, config.method["name"], options, config.seed)


def counted_passes(run: Resolved, zoo: Zoo) -> Passes:
    """The passes of one of a run's updates, their mean."""
    return dry_run(run, zoo).mean(run.config.training.updates)


class _Options:
    """A method's options, equal to others that differ in learning rates alone: a study that tries
    hundreds of rates is planned by one dry run."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self.plain = plain
        self.key = json.dumps(_without_rates(plain), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Options) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _without_rates(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: bool(inner) if name == "learning_rate" else _without_rates(inner)
            for name, inner in value.items()
        }
    return [_without_rates(inner) for inner in value] if isinstance(value, list) else value


@functools.lru_cache(maxsize=64)
def _dry(zoo: Zoo, backbone: Backbone, method: str, options: _Options, seed: int) -> DryRun:
    checked = zoo.methods.configure(method, dict(options.plain), "method")
    return DryRun(make_method(method, checked, zoo, planned=True), backbone, seed)
