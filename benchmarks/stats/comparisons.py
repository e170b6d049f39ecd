"""Means with intervals, paired differences of arms, and the comparisons behind hypotheses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from benchmarks.stats.intervals.arm_scores import ArmScores
from benchmarks.stats.intervals.bootstrap import Bootstrap, Interval
from benchmarks.stats.model.entries import Comparison, ScoreRow
from benchmarks.study.entries.baselines import NAIVE_BASELINES
from benchmarks.study.entries.config import Hypothesis
from benchmarks.study.metric_info import MetricInfo

Row = TypeVar("Row", bound=ScoreRow)


def finite(value: float | None) -> float | None:
    """None for a number that is not finite."""
    return value if value is not None and math.isfinite(value) else None


def score_row(arm: ArmScores, metric: MetricInfo, bootstrap: Bootstrap) -> ScoreRow:
    """The mean of an arm in a metric that it was measured by."""
    first, replicates = arm.first, arm.replicates[metric.name]
    interval = bootstrap.interval(replicates, metric.bounds)
    return ScoreRow(
        arm=first.arm,
        method=first.method,
        baseline=arm.baseline,
        backbone=first.backbone,
        memory=first.memory,
        nfe=first.nfe,
        sampler=first.sampler,
        passes=dict(first.passes),
        setting=None if metric.own_steps is not None else first.setting,
        metric=metric.name,
        direction=metric.direction,
        mean=finite(interval.value),
        low=finite(interval.low),
        high=finite(interval.high),
        seeds=interval.seeds,
        prompts=bootstrap.prompts,
        videos=bootstrap.rows,
        seed_sd=finite(interval.seed_sd),
        prompt_se=finite(interval.prompt_se),
        not_finite=replicates.not_finite,
        scores=bootstrap.rows * len(arm.seeds),
        winner=False,
    )


def pairs(arms: Sequence[ArmScores]) -> Iterable[tuple[ArmScores, ArmScores]]:
    """Every two trained arms, and each of them with naive baselines, setting by setting."""
    for a, b in itertools.combinations(arms, 2):
        if a.setting != b.setting or (a.baseline and b.baseline):
            continue
        if a.baseline:
            a, b = b, a
        if not b.baseline or b.first.method in NAIVE_BASELINES:
            yield a, b


def compare(
    a: ArmScores, b: ArmScores, metric: MetricInfo, bootstrap: Bootstrap
) -> Comparison | None:
    """`a` minus `b`, or None where one of them lacks the metric.

    For a metric with a target the difference is that of the distances to it.
    """
    if metric.name not in a.replicates or metric.name not in b.replicates:
        return None
    paired = a.seeds == b.seeds or a.baseline or b.baseline
    first, second, bounds = a.replicates[metric.name], b.replicates[metric.name], metric.bounds
    if metric.target is not None:
        first, second = first.distance_to(metric.target), second.distance_to(metric.target)
        bounds = None
    interval = bootstrap.difference(first, second, paired, bounds)
    if a.baseline or b.baseline:  # a baseline is one network, its row goes with every seed
        seeds = max(len(a.seeds), len(b.seeds))
    else:
        seeds = interval.seeds
    # an interval of single trainings covers prompts alone, and so decides nothing
    decides = seeds > 1 or (a.baseline and b.baseline)
    assert a.first.nfe is not None and a.first.sampler is not None  # real videos stand apart
    return Comparison(
        a=a.first.arm,
        b=b.first.arm,
        backbone=a.first.backbone,
        nfe=a.first.nfe,
        sampler=a.first.sampler,
        metric=metric.name,
        direction=metric.direction,
        difference=finite(interval.value),
        low=finite(interval.low),
        high=finite(interval.high),
        p=interval.p if decides and math.isfinite(interval.low) else None,
        significant=decides and interval.significant,
        better=_better(interval, metric) if decides else None,
        seeds=seeds,
        paired_by_seed=paired,
    )


def _better(interval: Interval, metric: MetricInfo) -> Literal["a", "b"] | None:
    if not interval.significant or metric.direction == "none":
        return None
    return "a" if (interval.value > 0) == (metric.direction == "higher") else "b"


def with_winners(
    rows: Sequence[Row], comparisons: Sequence[Comparison], metrics: Sequence[MetricInfo]
) -> list[Row]:
    """The rows with `winner`: there are other trained arms in the setting, and the arm is
    significantly better than each of them. Only metrics of quality have winners."""
    quality = {metric.name for metric in metrics if metric.kind == "quality"}

    def key(entry: ScoreRow | Comparison, arm: str) -> tuple[str, str, int | None, str | None, str]:
        return entry.metric, entry.backbone, entry.nfe, entry.sampler, arm

    trained = {key(row, row.arm) for row in rows if not row.baseline}
    wins: dict[tuple[str, str, int | None, str | None, str], list[bool]] = {}
    for comparison in comparisons:
        a, b = key(comparison, comparison.a), key(comparison, comparison.b)
        if a in trained and b in trained:
            wins.setdefault(a, []).append(comparison.better == "a")
            wins.setdefault(b, []).append(comparison.better == "b")

    def winner(row: Row) -> bool:
        against = wins.get(key(row, row.arm), [])
        return row.metric in quality and bool(against) and all(against)

    return [row.model_copy(update={"winner": winner(row)}) for row in rows]


def compare_hypothesis(
    hypothesis: Hypothesis,
    arms: Sequence[ArmScores],
    metrics: Mapping[str, MetricInfo],
    bootstrap: Bootstrap,
) -> Comparison | None:
    """The comparison that a hypothesis names, if it was measured.

    The verdict needs all hypotheses together; see `benchmarks.stats.verdicts.decide`.
    """
    metric = metrics.get(hypothesis.metric)
    sampler: str | None = hypothesis.sampler
    if metric and metric.own_steps is not None:  # it has one way of sampling, its own
        arms = [arm for arm in arms if metric.name in arm.replicates]
        sampler = None
    a = find_arm(arms, hypothesis.a, hypothesis.nfe, sampler)
    b = find_arm(arms, hypothesis.b, hypothesis.nfe, sampler, like=a)
    return compare(a, b, metric, bootstrap) if a and b and metric else None


def find_arm(
    arms: Sequence[ArmScores],
    name: str,
    nfe: int,
    sampler: str | None,
    like: ArmScores | None = None,
) -> ArmScores | None:
    """The arm under a setting; a baseline that has one setting only matches any. `like`: of the
    same backbone, and of its sampler where `sampler` is None."""
    named = [arm for arm in arms if arm.first.arm == name]
    if like:
        named = [arm for arm in named if arm.first.backbone == like.first.backbone] or named
        sampler = sampler or like.first.sampler
    exact = [arm for arm in named if arm.first.nfe == nfe and sampler in (None, arm.first.sampler)]
    if exact:
        return exact[0]
    return named[0] if len(named) == 1 and named[0].baseline else None
