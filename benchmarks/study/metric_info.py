"""Metrics as a report needs them: direction, kind, and how scores become a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch

from salt_zoo.config.metrics import configure_metrics
from salt_zoo.core.errors import shown
from salt_zoo.core.protocols import Direction, MetricKind
from salt_zoo.plugin.checked_metric import make_metric
from salt_zoo.plugin.foreign import BrokenPart, foreign
from salt_zoo.plugin.manager import Zoo


@dataclass(frozen=True)
class MetricInfo:
    """A metric as a report needs it.

    Attributes:
        direction: which scores are better; "target" is nearest to `target`.
        reduce: takes `[P]` scores or `[P, D]` features to one number.
        reduce_many: where a metric has it, `[R, P, D]` to `[R]` numbers at once.
        kind: only metrics of the kind "quality" vote, win and are marked.
        mean: `reduce` is the mean of `[P]` scores.
        bounds: the least and the largest score that there can be, where the metric says so.
        version: raised by the metric's author whenever its numbers change.
        own_steps: the steps of its own rollouts, for one that does not look at the study's videos.
    """

    name: str
    direction: Direction
    summary: str
    reduce: Callable[[torch.Tensor], float]
    reduce_many: Callable[[torch.Tensor], torch.Tensor] | None = None
    kind: MetricKind = "quality"
    target: float | None = None
    mean: bool = False
    bounds: tuple[float, float] | None = None
    version: int | None = None
    own_steps: int | None = None

    @classmethod
    def of(cls, name: str, metric: Any, summary: str) -> MetricInfo:
        """What a registered metric declares; see `salt_zoo.core.protocols.Metric` for defaults.

        Raises:
            BrokenPart: its direction or kind is not one, a target is missing, or the like.
        """
        title: Any = getattr(metric, "title", f"metric {name!r}")
        with foreign(title):
            found = cls(
                name,
                metric.direction,
                summary,
                metric.reduce,
                getattr(metric, "reduce_many", None),
                getattr(metric, "kind", "description" if metric.direction == "none" else "quality"),
                getattr(metric, "target", None) if metric.direction == "target" else None,
                getattr(metric, "mean", False),
                getattr(metric, "bounds", None),
                getattr(metric, "version", None),
                metric.own_steps,
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
        if bounds is not None and not (
            isinstance(bounds, tuple | list)
            and len(bounds) == 2
            and all(map(_is_number, bounds))
            and bounds[0] < bounds[1]
        ):
            return f"bounds is {shown(bounds)}; it must be the least and the largest score"
        if self.own_steps is not None and not (_is_whole(self.own_steps) and self.own_steps > 0):
            return f"own_steps is {shown(self.own_steps)}; it must be a number of steps, or None"
        if self.version is not None and not _is_whole(self.version):
            return f"version is {shown(self.version)}; it must be an integer"
        if not isinstance(self.mean, bool):
            return f"mean is {shown(self.mean)}; it must be True or False"
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def metric_infos(zoo: Zoo, metrics: Sequence[str | Mapping[str, Any]]) -> list[MetricInfo]:
    """A study's metrics, as its file names them: by label, with their options."""
    found = []
    for label, (wanted, options) in configure_metrics(zoo, metrics).items():
        metric = make_metric(wanted.name, options, zoo)
        summary = zoo.metrics[wanted.name].summary
        summary += f" ({wanted.summary})" if wanted.summary else ""
        found.append(MetricInfo.of(label, metric, summary))
    return found


def reading(direction: Direction, target: float | None) -> str:
    """The direction of a metric in words; empty where it has none.

    >>> reading("target", 1.0), reading("lower", None), reading("none", None)
    ('closest to 1 is best', 'lower is better', '')
    """
    if direction == "target":
        return f"closest to {target:g} is best"
    return "" if direction == "none" else f"{direction} is better"
