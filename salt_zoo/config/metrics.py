"""Metrics as a configuration names them: by name, or with options and a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator

from salt_zoo.config.parts import named
from salt_zoo.core.base.config import said
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import NAME


@dataclass(frozen=True)
class ChosenMetric:
    """A registered metric, its options, and by what a report calls it."""

    label: str
    name: str
    options: dict[str, Any]

    @property
    def summary(self) -> str:
        """The options that it was given, in words, as in `gap 2`; empty without any."""
        return ", ".join(f"{key} {value}" for key, value in self.options.items())


def chosen(metric: str | Mapping[str, Any]) -> ChosenMetric:
    """A metric as it is written in a file: its name, or its name with options and a label."""
    if isinstance(metric, str):
        return ChosenMetric(metric, metric, {})
    options = {key: value for key, value in metric.items() if key not in ("name", "label")}
    return ChosenMetric(metric.get("label", metric["name"]), metric["name"], options)


def _metric(metric: Any) -> Any:
    """Its name alone where there is nothing else to say."""
    if isinstance(metric, str):
        return metric
    part = named(metric)
    label = part.get("label", part["name"])
    if not isinstance(label, str) or not NAME.fullmatch(label):
        raise ValueError(
            "the label must be lower-case words joined by hyphens, at most 80 characters"
        )
    return part if part.keys() != {"name"} else part["name"]


def _by_label(metrics: list[Any]) -> list[Any]:
    for label, times in Counter(chosen(metric).label for metric in metrics).items():
        if times > 1:
            raise said(f"{label!r} is listed twice; give one of them a label of its own")
    return metrics


#: Metrics, each by its name or as `{name: motion-magnitude, gap: 2, label: motion-gap-2}`.
Metrics = Annotated[
    list[Annotated[str | dict[str, Any], BeforeValidator(_metric)]], AfterValidator(_by_label)
]


def configure_metrics(
    zoo: Zoo, metrics: Sequence[str | Mapping[str, Any]], where: str = "metrics"
) -> dict[str, tuple[ChosenMetric, BaseModel]]:
    """By label each metric with its checked options, every default filled in.

    Raises:
        ZooError: an unknown name or option, or a wrong value.
    """
    found = {}
    for place, metric in enumerate(map(chosen, metrics)):
        at = f"{where}.{place}"
        found[metric.label] = metric, zoo.metrics.configure(metric.name, metric.options, at)
    return found


def make_metrics(zoo: Zoo, metrics: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics by label."""
    from salt_zoo.plugin.isolation.checked_metric import make_metric

    return {
        label: make_metric(metric.name, options, zoo)
        for label, (metric, options) in configure_metrics(zoo, metrics).items()
    }
