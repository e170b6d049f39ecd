"""Metrics as a report needs them: direction, kind, and how scores become a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from salt_zoo.config.metrics import configure_metrics
from salt_zoo.core.protocols import Direction, MetricKind
from salt_zoo.plugin.isolation.checked_metric import CheckedMetric, make_metric
from salt_zoo.plugin.isolation.metric_reading import Reading
from salt_zoo.plugin.manager import Zoo


@dataclass(frozen=True)
class MetricInfo:
    """A metric as a report needs it.

    Attributes:
        direction: which scores are better; "target" is nearest to `target`.
        reduce: takes `[P]` scores or `[P, D]` features to one number.
        reduce_many: where a metric has it, `[R, P, D]` to `[R]` numbers at once.
        kind, mean, bounds, version, own_steps: as in
            `salt_zoo.plugin.isolation.metric_reading.Reading`.
    """

    name: str
    direction: Direction
    summary: str
    reduce: Callable[[torch.Tensor], float]
    reduce_many: Callable[[torch.Tensor], torch.Tensor] | None = None
    kind: MetricKind = "quality"
    target: float | None = None
    mean: bool = False
    bounds: tuple[float | None, float | None] | None = None
    version: int | None = None
    own_steps: int | None = None

    @classmethod
    def of(cls, name: str, metric: CheckedMetric, summary: str) -> MetricInfo:
        """What a registered metric declares; see `salt_zoo.core.protocols.Metric` for defaults.

        Raises:
            BrokenPart: its direction or kind is not one, a target is missing, or the like.
        """
        read = Reading.of(metric, metric.title)
        return cls(
            name,
            read.direction,
            summary,
            metric.reduce,
            metric.reduce_many,
            read.kind,
            read.target,
            read.mean,
            read.bounds,
            read.version,
            read.own_steps,
        )


def metric_infos(zoo: Zoo, metrics: Sequence[str | Mapping[str, Any]]) -> list[MetricInfo]:
    """A study's metrics, as its file names them: by label, with their options."""
    found = []
    for label, (wanted, options) in configure_metrics(zoo, metrics).items():
        metric = make_metric(wanted.name, options, zoo)
        summary = zoo.metrics[wanted.name].summary
        summary += f" ({wanted.summary})" if wanted.summary else ""
        found.append(MetricInfo.of(label, metric, summary))
    return found
