"""What a report knows of a metric: its direction, its kind, and how its scores become a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch

from salt_zoo.errors import ZooError
from salt_zoo.plugins import Zoo
from salt_zoo.protocols import Better, MetricKind
from salt_zoo.run import configure_metrics


@dataclass(frozen=True)
class MetricInfo:
    """A metric as a report needs it.

    Attributes:
        better: the direction; "target" is nearest to `target`, "none" has no direction.
        reduce: takes `[P]` scores or `[P, D]` features to one number.
        reduce_many: where a metric has it, `[R, P, D]` to `[R]` numbers at once.
        kind: only metrics of the kind "quality" vote, win and are marked.
        mean: `reduce` is the mean of `[P]` scores.
        bounds: the least and the largest score that there can be, where the metric says so.
        version: raised by the metric's author whenever its numbers change.
        own_steps: the steps of its own rollouts, for one that does not look at the study's videos.
    """

    name: str
    better: Better
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
        """What a registered metric says of itself; see `salt_zoo.protocols.Metric` for defaults.

        Raises:
            ZooError: its direction or kind is not one, or a target is missing.
        """
        better = metric.better
        if better not in get_args(Better):
            raise ZooError(
                f"metric {name!r}: better is {better!r}; it must be one of "
                f"{', '.join(get_args(Better))}"
            )
        target: Any = getattr(metric, "target", None)
        if better == "target" and not isinstance(target, int | float):
            raise ZooError(f"metric {name!r}: better is 'target', so it must have a target, too")
        kind: Any = getattr(metric, "kind", "description" if better == "none" else "quality")
        if kind not in get_args(MetricKind):
            raise ZooError(
                f"metric {name!r}: kind is {kind!r}; it must be one of "
                f"{', '.join(get_args(MetricKind))}"
            )
        if kind == "quality" and better == "none":
            raise ZooError(
                f"metric {name!r}: a metric of quality needs a direction; better is 'none'"
            )
        return cls(
            name,
            better,
            summary,
            metric.reduce,
            getattr(metric, "reduce_many", None),
            kind,
            float(target) if better == "target" else None,
            getattr(metric, "mean", False),
            getattr(metric, "bounds", None),
            getattr(metric, "version", None),
            metric.own_steps,
        )

    def plain(self) -> dict[str, Any]:
        """The entry of results.json."""
        return {
            "name": self.name,
            "better": self.better,
            "target": self.target,
            "kind": self.kind,
            "mean": self.mean,
            "bounds": list(self.bounds) if self.bounds else None,
            "version": self.version,
            "own_steps": self.own_steps,
            "summary": self.summary,
        }


def metric_infos(zoo: Zoo, metrics: Sequence[str | Mapping[str, Any]]) -> list[MetricInfo]:
    """A study's metrics, as its file names them: by label, with their options."""
    found = []
    for label, (wanted, options) in configure_metrics(zoo, metrics).items():
        metric = zoo.metrics.create(wanted.name, options, zoo)
        summary = zoo.metrics[wanted.name].summary
        summary += f" ({wanted.summary})" if wanted.summary else ""
        found.append(MetricInfo.of(label, metric, summary))
    return found


def direction(metric: Any) -> str:
    """The direction of a metric of results.json in words; empty where it has none.

    >>> direction({"better": "target", "target": 1.0})
    'closest to 1 is best'
    """
    better = metric["better"]
    if better == "target":
        return f"closest to {metric['target']:g} is best"
    return f"{better} is better" if better in ("higher", "lower") else ""
