"""From the scores of a study's arms to the content of results.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.evaluate.records import EvalResult, TrainingCost
from benchmarks.stats.answer import answer_table, primary_metric
from benchmarks.stats.carried import Carried
from benchmarks.stats.comparisons import (
    compare,
    compare_hypothesis,
    finite,
    pairs,
    score_row,
    with_winners,
)
from benchmarks.stats.costs import arm_costs, training_curves
from benchmarks.stats.drift import DriftAnalysis
from benchmarks.stats.intervals.arm_scores import (
    FEATURE_RESAMPLES,
    ArmScores,
    Key,
    Store,
    group_scores,
    key_of,
)
from benchmarks.stats.intervals.bootstrap import Bootstrap
from benchmarks.stats.model.entries import Comparison, Drift, Measurement, MetricEntry, ScoreRow
from benchmarks.stats.model.schema import (
    Answer,
    ArmCost,
    BootstrapSettings,
    Provenance,
    Results,
    StudyRecord,
    TrainingCurve,
)
from benchmarks.stats.results_file import plain_json, stored
from benchmarks.stats.verdicts import decide, judge
from benchmarks.study.entries.config import Hypothesis
from benchmarks.study.metric_info import MetricInfo
from benchmarks.study.stated import Stated
from salt_zoo.core.base.errors import ZooError

#: Called with (parts done, parts in all).
Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    pass


def build_results(
    study: Mapping[str, Any],
    measured: Sequence[EvalResult],
    costs: Sequence[TrainingCost],
    metrics: Sequence[MetricInfo],
    prompts: Sequence[str],
    provenance: Mapping[str, Any],
    resamples: int = 1000,
    long_metrics: Sequence[MetricInfo] = (),
    long_prompts: Sequence[str] = (),
    stated: Sequence[Stated] = (),
    budgets: Mapping[str, float] | None = None,
    store: Store | None = None,
    progress: Progress = _silent,
) -> Results:
    """The content of results.json, as the file holds it.

    Args:
        study: the resolved study; `long_*` are of its long videos.
        prompts: those of the rows of scores, in their order; a prompt may have several rows.
        stated: when each hypothesis was stated, see `benchmarks.study.stated`.
        budgets: FLOPs of one training of each arm as planned.
        store: statistics of features that are known already; those that are not are added.
    """
    return analyse(
        StudyRecord.model_validate(plain_json(study)),
        measured,
        metrics,
        prompts,
        arms=arm_costs(measured, costs, budgets or {}),
        curves=training_curves(costs),
        provenance=Provenance.model_validate(plain_json(provenance)),
        resamples=resamples,
        long_metrics=long_metrics,
        long_prompts=long_prompts,
        stated=stated,
        store={} if store is None else store,
        progress=progress,
    )


def analyse(
    study: StudyRecord,
    measured: Sequence[EvalResult],
    metrics: Sequence[MetricInfo],
    prompts: Sequence[str],
    *,
    arms: Sequence[ArmCost],
    curves: Sequence[TrainingCurve],
    provenance: Provenance,
    resamples: int,
    long_metrics: Sequence[MetricInfo],
    long_prompts: Sequence[str],
    stated: Sequence[Stated],
    store: Store,
    progress: Progress = _silent,
    carried: Carried | None = None,
) -> Results:
    """All of results.json, computed from scores where it follows from them.

    `carried` has the metrics of an older report for which there are no scores any more.
    """
    if len(set(prompts)) < 2:
        raise ZooError("one evaluation prompt: intervals need at least 2; raise evaluation.prompts")
    long = None
    if any(result.long for result in measured):
        long = DriftAnalysis(measured, long_metrics, long_prompts, resamples, store)
    parts = len(measured) + (long.parts if long else 0)
    short = _Analysis(metrics, Bootstrap(prompts, resamples), carried)
    short.group(measured, store, lambda done: progress(done, parts))
    drift = long.section(lambda done: progress(len(measured) + done, parts)) if long else None
    if drift and carried:
        drift = carried.with_drift(drift, long_metrics)

    def decided_by(hypothesis: Hypothesis) -> Comparison | None:
        if hypothesis.slope or hypothesis.length:
            comparison = long.compare(hypothesis) if long else None
        else:
            comparison = short.compare_hypothesis(hypothesis)
        return carried.hypothesis(hypothesis) if carried and comparison is None else comparison

    comparisons = short.comparisons()
    when: list[Stated] = list(stated)
    when += ["not recorded"] * (len(study.hypotheses) - len(stated))
    hypotheses = decide(study.hypotheses, [decided_by(h) for h in study.hypotheses], when)
    metric_entries = [MetricEntry.of(metric) for metric in metrics]
    counted = _counted(comparisons, drift, metric_entries)
    answer, primary = None, primary_metric(study.primary_metric, metrics)
    if primary is not None:
        answer = short.answer(primary, arms)
    return stored(
        Results(
            study=study,
            metrics=metric_entries,
            prompts=list(prompts),
            measurements=[Measurement.of(result) for result in measured],
            rows=with_winners(short.rows(), comparisons, metrics),
            comparisons=comparisons,
            drift=drift,
            hypotheses=hypotheses,
            claims=judge(study.claims, hypotheses),
            answer=answer,
            arms=list(arms),
            curves=list(curves),
            comparisons_count=len(counted),
            comparisons_significant=sum(entry.significant for entry in counted),
            # without any true difference, a 95% interval excludes zero in one of twenty
            comparisons_by_chance=0.05 * len(counted),
            bootstrap=BootstrapSettings(resamples=resamples, feature_resamples=FEATURE_RESAMPLES),
            provenance=provenance,
            carried=carried is not None,
        )
    )


class _Analysis:
    """Rows and comparisons of videos of the training's length, from scores or carried over."""

    def __init__(
        self, metrics: Sequence[MetricInfo], bootstrap: Bootstrap, carried: Carried | None
    ) -> None:
        self.metrics, self.bootstrap, self.carried = metrics, bootstrap, carried
        self.arms: list[ArmScores] = []

    def group(
        self, measured: Sequence[EvalResult], store: Store, progress: Callable[[int], None]
    ) -> None:
        groups: dict[Key, list[EvalResult]] = {}
        for result in measured:
            groups.setdefault(key_of(result), []).append(result)
        done = 0
        for group in groups.values():
            self.arms += group_scores(group, self.metrics, self.bootstrap, store)
            done += len(group)
            progress(done)

    def compare(self, a: ArmScores, b: ArmScores, metric: MetricInfo) -> Comparison | None:
        comparison = compare(a, b, metric, self.bootstrap)
        if comparison is None and self.carried:
            return self.carried.comparison(a, b, metric)
        return comparison

    def compare_hypothesis(self, hypothesis: Hypothesis) -> Comparison | None:
        metrics = {metric.name: metric for metric in self.metrics}
        return compare_hypothesis(hypothesis, self.arms, metrics, self.bootstrap)

    def comparisons(self) -> list[Comparison]:
        comparisons = (self.compare(a, b, m) for a, b in pairs(self.arms) for m in self.metrics)
        return [comparison for comparison in comparisons if comparison]

    def rows(self) -> list[ScoreRow]:
        rows = (self._row(arm, metric) for metric in self.metrics for arm in self.arms)
        return [row for row in rows if row]

    def _row(self, arm: ArmScores, metric: MetricInfo) -> ScoreRow | None:
        if metric.name in arm.replicates:
            return score_row(arm, metric, self.bootstrap)
        return self.carried.row(arm, metric) if self.carried else None

    def answer(self, primary: MetricInfo, costs: Sequence[ArmCost]) -> Answer:
        return answer_table(
            self.arms,
            primary,
            costs,
            lambda arm: self._value(arm, primary),
            lambda a, b: self.compare(a, b, primary),
        )

    def _value(self, arm: ArmScores, metric: MetricInfo) -> float | None:
        replicates = arm.replicates.get(metric.name)
        if replicates is None:
            return self.carried.value(arm, metric) if self.carried else None
        return finite(float(replicates.values.mean()))


def _counted(
    comparisons: Iterable[Comparison], drift: Drift | None, metrics: Sequence[MetricEntry]
) -> list[Comparison]:
    """The comparisons in metrics of quality that have an interval, each once."""
    measured = [*metrics, *(drift.metrics if drift else ())]
    quality = {metric.name for metric in measured if metric.kind == "quality"}
    counted: dict[tuple[Any, ...], Comparison] = {}

    def count(entry: Comparison, length: int | None, slope: bool) -> None:
        # a slope has no direction where its value has a target
        if entry.metric in quality and entry.direction != "none" and entry.p is not None:
            sampler = None if entry.nfe == 1 else entry.sampler  # at one step all samplers are one
            key = (entry.metric, entry.a, entry.b, entry.backbone, entry.nfe, sampler)
            counted.setdefault((*key, length, slope), entry)

    for entry in comparisons:
        count(entry, None, False)
    for long in drift.comparisons if drift else ():
        count(long, long.length, long.slope)
    return list(counted.values())
