"""What makes two runs one: the part of a configuration that decides the trained weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from salt_zoo.core.networks.precision import ResolvedPrecision

#: Keys of `training` that say how a run is watched and kept.
HARMLESS = ("log_every", "checkpoint_every", "trackers")

#: Groups that decide no weight.
NO_WEIGHT = ("quality", "execution")

_ABSENT = object()


def identity(content: Mapping[str, Any], precision: ResolvedPrecision) -> dict[str, Any]:
    """What of a resolved run (`Resolved.plain`) can change its weights, and all options of its
    parts: which of them only decode or keep, a part does not declare.

    Quality metrics, logging, checkpoints and trackers only look on; how a batch is split over
    processes and passes changes its rounding. `precision` is what the run's own setting means on
    its device: `auto` and `fp32` are one run on a CPU.
    """
    kept = {key: value for key, value in content.items() if key not in NO_WEIGHT}
    training = {k: v for k, v in content.get("training", {}).items() if k not in HARMLESS}
    if not training.get("lora"):
        training.pop("lora", None)  # without one a run is what it was before there were any
    return {**kept, "training": {**training, "precision": precision}}


@dataclass(frozen=True)
class Difference:
    """A key that has another value, or is in one of two contents only."""

    key: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.there)} there, {_shown(self.here)} here"


def differences(there: Any, here: Any, path: str = "") -> Iterator[Difference]:
    """Every key whose value differs, dotted.

    >>> [str(one) for one in differences({"a": {"b": 1}}, {"a": {"b": 2, "c": "x"}})]
    ['a.b: 1 there, 2 here', 'a.c: nothing there, "x" here']
    """
    if not (isinstance(there, Mapping) and isinstance(here, Mapping)):
        if there != here:
            yield Difference(path, there, here)
        return
    for key in sorted({*there, *here}, key=str):
        inner = f"{path}.{key}" if path else str(key)
        yield from differences(there.get(key, _ABSENT), here.get(key, _ABSENT), inner)


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
