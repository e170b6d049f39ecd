"""Whether what a study wants to know is among what it measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from benchmarks.study.schema import Outcome, StudyConfig
from salt_zoo.config.metrics import ChosenMetric, configure_metrics
from salt_zoo.core.errors import ZooError, did_you_mean
from salt_zoo.plugin.checked_metric import make_metric
from salt_zoo.plugin.manager import Zoo

#: Metrics by label, with their checked options.
Known = Mapping[str, tuple[ChosenMetric, BaseModel]]


def check_outcomes(study: StudyConfig, zoo: Zoo, where: str) -> None:
    """Refuse an outcome that the runs could not answer.

    Raises:
        ZooError: its metric, number of steps or sampler is not measured.
    """
    for place, error in _errors(study, zoo).items():
        raise ZooError(f"{where}: primary.{place}.{error}")


def measured_outcomes(study: StudyConfig, zoo: Zoo) -> list[int]:
    """The places of the outcomes that are measured."""
    wrong = _errors(study, zoo)
    return [place for place in range(len(study.primary)) if place not in wrong]


def with_own_samplers(study: StudyConfig, zoo: Zoo) -> StudyConfig:
    """The study whose outcomes about a metric with rollouts of its own have that metric's sampler:
    an outcome need not say how a metric works."""
    known = configure_metrics(zoo, study.evaluation.metrics)
    primary = []
    for outcome in study.primary:
        metric = _make(outcome.metric, known, zoo)
        if metric is not None and metric.own_steps is not None:
            outcome = outcome.model_copy(update={"sampler": metric.own_sampler})
        primary.append(outcome)
    return study.model_copy(update={"primary": primary})


def _make(label: str, known: Known, zoo: Zoo) -> Any:
    """The metric of an outcome; None for one that is unknown, or that cannot be made here for want
    of a package: a plan can be made without it."""
    if label not in known:
        return None
    metric, options = known[label]
    try:
        return make_metric(metric.name, options, zoo)
    except ZooError:
        return None


def _errors(study: StudyConfig, zoo: Zoo) -> dict[int, str]:
    """By place what is wrong with an outcome."""
    long = study.evaluation.long
    known = configure_metrics(zoo, study.evaluation.metrics)
    of_long = known if not long or long.metrics is None else configure_metrics(zoo, long.metrics)
    found = {}
    for place, outcome in enumerate(study.primary):
        if outcome.slope or outcome.length:
            error = _long_error(outcome, study, of_long, zoo)
        else:
            error = _error(outcome, study, known, zoo)
        if error:
            found[place] = error
    return found


def _error(outcome: Outcome, study: StudyConfig, known: Known, zoo: Zoo) -> str | None:
    evaluation, label = study.evaluation, outcome.metric
    if label not in known:
        return _not_of("metric", label, "evaluation.metrics", known)
    metric = _make(label, known, zoo)
    if metric is None:
        return None
    if metric.direction == "none":
        return f"metric: {label} has no direction in which an arm could be better"
    if metric.own_steps is not None:
        if outcome.nfe != metric.own_steps:
            return f"nfe: {label} is measured with {metric.own_steps} steps of its own"
        if "sampler" in outcome.model_fields_set and outcome.sampler != metric.own_sampler:
            return f"sampler: {label} makes rollouts of its own by {metric.own_sampler}"
        return None
    if outcome.nfe not in evaluation.nfe:
        return _not_of("nfe", outcome.nfe, "evaluation.nfe", evaluation.nfe)
    if outcome.sampler not in evaluation.samplers:
        return _not_of("sampler", outcome.sampler, "evaluation.samplers", evaluation.samplers)
    return None


def _long_error(outcome: Outcome, study: StudyConfig, known: Known, zoo: Zoo) -> str | None:
    long, label = study.evaluation.long, outcome.metric
    assert long is not None  # as the study was checked when it was read
    if label not in known:
        return _not_of("metric", label, "the metrics of evaluation.long", known)
    metric = _make(label, known, zoo)
    if metric is not None and (
        metric.direction == "none" or (outcome.slope and metric.direction == "target")
    ):
        what = "slope" if outcome.slope else "value"
        return f"metric: a {what} of {label} has no direction in which an arm could be better"
    if metric is not None and not metric.has_clips:
        return f"metric: {label} has no scores of clips of long videos"
    if outcome.sampler != long.sampler:
        return f"sampler: {outcome.sampler} is not evaluation.long.sampler: {long.sampler}"
    return None


def _not_of(key: str, value: object, of: str, known: Iterable[object]) -> str:
    return f"{key}: {value} is not of {of}; {did_you_mean(str(value), map(str, known))}"
