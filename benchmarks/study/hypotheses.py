"""Whether a study measures what its hypotheses are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from benchmarks.study.schema import Hypothesis, StudyConfig
from salt_zoo.config.metrics import ChosenMetric, configure_metrics
from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.plugin.isolation.checked_metric import CheckedMetric, make_metric
from salt_zoo.plugin.manager import Zoo

#: Metrics by label, with their checked options.
Metrics = Mapping[str, tuple[ChosenMetric, BaseModel]]


def check_hypotheses(study: StudyConfig, zoo: Zoo, where: str) -> None:
    """Reject a hypothesis that the runs could not decide.

    Raises:
        ZooError: its metric, number of steps or sampler is not measured.
    """
    for index, error in _errors(study, zoo).items():
        raise ZooError(f"{where}: hypotheses.{index}.{error}")


def measured_hypotheses(study: StudyConfig, zoo: Zoo) -> list[int]:
    """The indices of the hypotheses that are measured."""
    errors = _errors(study, zoo)
    return [index for index in range(len(study.hypotheses)) if index not in errors]


def with_own_samplers(study: StudyConfig, zoo: Zoo) -> StudyConfig:
    """The study in which hypotheses about a metric that samples rollouts of its own have that
    metric's sampler: a hypothesis need not say how a metric works."""
    metrics = configure_metrics(zoo, study.evaluation.metrics)
    hypotheses = []
    for hypothesis in study.hypotheses:
        metric = _make(hypothesis.metric, metrics, zoo)
        if metric is not None and metric.own_steps is not None:
            hypothesis = hypothesis.model_copy(update={"sampler": metric.own_sampler})
        hypotheses.append(hypothesis)
    return study.model_copy(update={"hypotheses": hypotheses})


def _make(label: str, metrics: Metrics, zoo: Zoo) -> CheckedMetric | None:
    """The metric of a hypothesis; None if it is unknown, or a package that it needs is missing
    here: a plan can be made without it."""
    if label not in metrics:
        return None
    metric, options = metrics[label]
    try:
        return make_metric(metric.name, options, zoo)
    except ZooError:
        return None


def _errors(study: StudyConfig, zoo: Zoo) -> dict[int, str]:
    """By index what is wrong with a hypothesis."""
    long = study.evaluation.long
    metrics = configure_metrics(zoo, study.evaluation.metrics)
    long_metrics = metrics
    if long and long.metrics is not None:
        long_metrics = configure_metrics(zoo, long.metrics)
    errors = {}
    for index, hypothesis in enumerate(study.hypotheses):
        if hypothesis.slope or hypothesis.length:
            error = _long_error(hypothesis, study, long_metrics, zoo)
        else:
            error = _error(hypothesis, study, metrics, zoo)
        if error:
            errors[index] = error
    return errors


def _error(hypothesis: Hypothesis, study: StudyConfig, metrics: Metrics, zoo: Zoo) -> str | None:
    evaluation, label = study.evaluation, hypothesis.metric
    if label not in metrics:
        return _not_of("metric", label, "evaluation.metrics", metrics)
    metric = _make(label, metrics, zoo)
    if metric is None:
        return None
    if metric.direction == "none":
        return f"metric: {label} has no direction in which an arm could be better"
    if metric.own_steps is not None:
        if hypothesis.nfe != metric.own_steps:
            return f"nfe: {label} is measured with {metric.own_steps} steps of its own"
        if "sampler" in hypothesis.model_fields_set and hypothesis.sampler != metric.own_sampler:
            return f"sampler: {label} makes rollouts of its own by {metric.own_sampler}"
        return None
    if hypothesis.nfe not in evaluation.nfe:
        return _not_of("nfe", hypothesis.nfe, "evaluation.nfe", evaluation.nfe)
    if hypothesis.sampler not in evaluation.samplers:
        return _not_of("sampler", hypothesis.sampler, "evaluation.samplers", evaluation.samplers)
    return None


def _long_error(
    hypothesis: Hypothesis, study: StudyConfig, metrics: Metrics, zoo: Zoo
) -> str | None:
    long, label = study.evaluation.long, hypothesis.metric
    assert long is not None  # as the study was checked when it was read
    if label not in metrics:
        return _not_of("metric", label, "the metrics of evaluation.long", metrics)
    metric = _make(label, metrics, zoo)
    if metric is not None and (
        metric.direction == "none" or (hypothesis.slope and metric.direction == "target")
    ):
        what = "slope" if hypothesis.slope else "value"
        return f"metric: a {what} of {label} has no direction in which an arm could be better"
    if metric is not None and not metric.has_clips:
        return f"metric: {label} has no scores of clips of long videos"
    if hypothesis.sampler != long.sampler:
        return f"sampler: {hypothesis.sampler} is not evaluation.long.sampler: {long.sampler}"
    return None


def _not_of(key: str, value: object, of: str, known: Iterable[object]) -> str:
    return f"{key}: {value} is not of {of}; {did_you_mean(str(value), map(str, known))}"
