"""What makes two runs one: the part of a configuration that decides the trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salt_zoo.precision import ResolvedPrecision

#: Keys of `training` that say how a run is watched, kept and fitted into memory.
HARMLESS = ("log_every", "checkpoint_every", "trackers", "gradient_checkpointing")


def identity(content: Mapping[str, Any], precision: ResolvedPrecision) -> dict[str, Any]:
    """What of a resolved run (`Resolved.plain`) can change its weights.

    Quality metrics, logging, checkpoints and trackers only look on; gradient checkpointing repeats
    the same arithmetic. `precision` is what the run's own setting means on its device: `auto` and
    `fp32` are one run on a CPU.
    """
    kept = {key: value for key, value in content.items() if key != "quality"}
    training = {k: v for k, v in content.get("training", {}).items() if k not in HARMLESS}
    return {**kept, "training": {**training, "precision": precision}}


def first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """The dotted key of the first difference of two identities; None if they are equal.

    >>> first_difference({"a": {"b": 1}}, {"a": {"b": 2}})
    'a.b'
    """
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return None if old == new else path
    for key in sorted({*old, *new}, key=str):
        here = f"{path}.{key}" if path else str(key)
        if key not in old or key not in new:
            return here
        if found := first_difference(old[key], new[key], here):
            return found
    return None
