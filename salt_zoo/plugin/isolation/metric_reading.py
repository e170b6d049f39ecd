"""How the scores of a metric are read: what it declares of itself, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, get_args

from salt_zoo.core.base.errors import shown
from salt_zoo.core.protocols import Direction, MetricKind
from salt_zoo.plugin.isolation.foreign import BrokenPart, foreign


@dataclass(frozen=True)
class Reading:
    """What a metric declares beside `measure` and `reduce`; see `salt_zoo.core.protocols.Metric`.

    Attributes:
        direction: which scores are better; "target" is nearest to `target`.
        kind: only metrics of the kind "quality" select a best arm.
        mean: `reduce` is the mean of `[N]` scores.
        bounds: the least and the largest score that there can be, where the metric says so; None
            for an end that is open.
        version: raised by the metric's author whenever its numbers change.
        own_steps: the steps of its own rollouts, for one that does not look at the study's videos.
    """

    direction: Direction
    kind: MetricKind = "quality"
    target: float | None = None
    mean: bool = False
    bounds: tuple[float | None, float | None] | None = None
    version: int | None = None
    own_steps: int | None = None

    @classmethod
    def of(cls, metric: Any, title: str) -> Reading:
        """What a metric declares, or its class.

        Args:
            title: of the metric, for errors.

        Raises:
            BrokenPart: its direction or kind is not one, a target is missing, or the like.
        """
        with foreign(title):
            direction = metric.direction
            found = cls(
                direction,
                getattr(metric, "kind", "description" if direction == "none" else "quality"),
                getattr(metric, "target", None) if direction == "target" else None,
                getattr(metric, "mean", False),
                getattr(metric, "bounds", None),
                getattr(metric, "version", None),
                getattr(metric, "own_steps", None),
            )
        if wrong := found._wrong():
            raise BrokenPart(f"{title}: {wrong}")
        if found.target is not None:
            return replace(found, target=float(found.target))
        return found

    def _wrong(self) -> str | None:
        """What cannot be as the metric says it is, in words."""
        direction, kind, bounds = self.direction, self.kind, self.bounds
        if direction not in get_args(Direction):
            known = ", ".join(get_args(Direction))
            return f"direction is {shown(direction)}; it must be one of {known}"
        if direction == "target" and not _is_number(self.target):
            return "direction is 'target', so it must have a target, too: a number"
        if kind not in get_args(MetricKind):
            return f"kind is {shown(kind)}; it must be one of {', '.join(get_args(MetricKind))}"
        if kind == "quality" and direction == "none":
            return "a metric of quality needs a direction, which is 'none'"
        if bounds is not None and not _are_bounds(bounds):
            return (
                f"bounds is {shown(bounds)}; it must be the least and the largest score, None for "
                "an open end"
            )
        if self.own_steps is not None and not (_is_whole(self.own_steps) and self.own_steps > 0):
            return f"own_steps is {shown(self.own_steps)}; it must be a number of steps, or None"
        if self.version is not None and not _is_whole(self.version):
            return f"version is {shown(self.version)}; it must be an integer"
        if not isinstance(self.mean, bool):
            return f"mean is {shown(self.mean)}; it must be True or False"
        return None


def direction_words(direction: Direction, target: float | None) -> str:
    """The direction of a metric in words; empty where it has none.

    >>> direction_words("target", 1.0), direction_words("lower", None)
    ('closest to 1 is best', 'lower is better')
    """
    if direction == "target":
        return f"closest to {target:g} is best"
    return "" if direction == "none" else f"{direction} is better"


def _are_bounds(value: Any) -> bool:
    if not (isinstance(value, tuple | list) and len(value) == 2):
        return False
    low, high = value
    known = [end for end in (low, high) if end is not None]
    return bool(known) and all(map(_is_number, known)) and (len(known) < 2 or low < high)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
