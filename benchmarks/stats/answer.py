"""The table at the top of a report: at each number of steps, is distilling worth it, and which arm
is best?

All of it is by one metric, the study's primary one, under one sampler of the study (sde, with which
students train, where there is a choice). The table answers two questions. An answer is significant
where Holm's adjusted level is below 0.05 over every comparison that could have been quoted in
answer to its question, at all numbers of steps: each arm with the undistilled network in every
setting that takes as many passes (cache writes, which guidance doubles, are not counted), and each
two arms. An arm that was trained once decides nothing: its intervals do not cover the training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from benchmarks.stats.intervals.arm_scores import ArmScores
from benchmarks.stats.intervals.bootstrap import holm
from benchmarks.stats.model.entries import Comparison
from benchmarks.stats.model.schema import (
    Answer,
    AnswerCost,
    AnswerCounts,
    AnswerRow,
    ArmCost,
    Quoted,
    Undistilled,
)
from benchmarks.stats.verdicts import LEVEL
from benchmarks.study.entries.baselines import STEPPED_BASELINES
from benchmarks.study.metric_info import MetricInfo
from salt_zoo.core.base.errors import MissingPackage, ZooError, did_you_mean

#: `a` minus `b` by the primary metric, as `comparisons.compare` returns it.
Difference = Callable[[ArmScores, ArmScores], Comparison | None]
#: The mean by the primary metric; None where there is none.
Value = Callable[[ArmScores], float | None]

#: The questions: whether distilling is worth it (arms against undistilled networks), and which arm
#: is best (arms against each other).
Question = Literal["undistilled", "arms"]
#: The first arm of a comparison against the second.
Side = Literal["better", "worse", "inconclusive", "not measured"]

_NOTHING = Quoted(difference=None, low=None, high=None, p_holm=None)


def primary_metric(named: str | None, metrics: Sequence[MetricInfo]) -> MetricInfo | None:
    """The metric that the study names, or the first of quality that looks at its videos."""
    fitting = [m for m in metrics if m.kind == "quality" and m.own_steps is None]
    return next((m for m in fitting if named in (None, m.name)), None)


def check_primary(
    named: str, labels: Iterable[str], make: Callable[[str], MetricInfo], where: str
) -> None:
    """The metric that a study names must be one that can choose a best arm; `make` makes it.

    Raises:
        ZooError: it is not measured, or does not judge the study's videos.
    """
    measured = list(labels)
    if named not in measured:
        raise ZooError(
            f"{where}: primary_metric: {named!r} is not of evaluation.metrics; "
            f"{did_you_mean(named, measured)}"
        )
    try:
        metric = make(named)
    except MissingPackage:
        return  # a plan does without it; a run makes all metrics before it trains, and says so
    if metric.kind != "quality" or metric.own_steps is not None:
        raise ZooError(
            f"{where}: primary_metric: {named!r} is a {metric.kind}; name a metric of quality of "
            "the study's videos"
        )


def answer_table(
    arms: Sequence[ArmScores],
    metric: MetricInfo,
    costs: Sequence[ArmCost],
    value: Value,
    difference: Difference,
) -> Answer:
    """A row for each backbone and number of steps."""
    table = _Table(metric, value, difference)
    compared = [table.compare(arms, *setting) for setting in _settings(arms, value)]
    table.adjust()
    by_arm = {cost.arm: cost for cost in costs}
    return Answer(
        metric=metric.name,
        comparisons=AnswerCounts(**table.counts()),
        rows=[
            table.row(ranked, beside, by_arm, _missing(ranked, arms, costs))
            for ranked, beside in compared
        ],
    )


def _settings(arms: Sequence[ArmScores], value: Value) -> list[tuple[str, str, int]]:
    """Backbones with their sampler (sde, with which students train, where there is a choice) and
    numbers of steps at which an arm has a value."""
    trained = [arm for arm in arms if not arm.baseline and value(arm) is not None]
    settings = []
    for backbone in dict.fromkeys(arm.first.backbone for arm in trained):
        results = [arm.first for arm in trained if arm.first.backbone == backbone]
        samplers = sorted({str(r.sampler) for r in results}, key=lambda name: name != "sde")
        steps = sorted({r.nfe for r in results if r.sampler == samplers[0] and r.nfe})
        settings += [(backbone, samplers[0], nfe) for nfe in steps]
    return settings


def _missing(
    ranked: Sequence[ArmScores], arms: Sequence[ArmScores], costs: Sequence[ArmCost]
) -> list[str]:
    """The other arms of the setting, which have no value there, and those whose trainings have all
    failed, wherever they would have been measured."""
    valued = {arm.first.arm for arm in ranked}
    here = [arm.first.arm for arm in arms if not arm.baseline and arm.setting == ranked[0].setting]
    scored = {arm.first.arm for arm in arms}
    failed = [cost.arm for cost in costs if not cost.seeds and cost.arm not in scored]
    return [name for name in dict.fromkeys([*here, *failed]) if name not in valued]


class _Table:
    """The comparisons of the table, each made once, and their adjusted levels."""

    def __init__(self, metric: MetricInfo, value: Value, difference: Difference) -> None:
        self.metric, self.value, self.difference = metric, value, difference
        self.comparisons: dict[Question, dict[tuple[int, int], Comparison]] = {
            "undistilled": {},
            "arms": {},
        }
        self.adjusted: dict[tuple[int, int], float] = {}

    def compare(
        self, arms: Sequence[ArmScores], backbone: str, sampler: str, nfe: int
    ) -> tuple[list[ArmScores], list[ArmScores]]:
        """The arms of a setting, the best first, and the undistilled networks beside them."""
        here = [a for a in arms if a.first.backbone == backbone and self.value(a) is not None]
        trained = [a for a in here if not a.baseline and a.setting == (backbone, nfe, sampler)]
        trained.sort(key=self._loss)
        stepped = [a for a in here if a.first.method in STEPPED_BASELINES]
        # a causal student starts from a network of its own kind
        start = "initial" if any(_starts(a, "initial") for a in stepped) else "teacher"
        stepped = [
            a
            for a in stepped
            # at one step all samplers are one
            if _starts(a, start) and (a.first.nfe != 1 or a.first.sampler == sampler)
        ]
        for first, second in itertools.combinations(trained, 2):
            self._compare("arms", first, second)
        for first, second in itertools.product(trained, stepped):
            if _passes(first) == _passes(second):
                self._compare("undistilled", first, second)
        return trained, [a for a in stepped if trained and _passes(a) == _passes(trained[0])]

    def _compare(self, question: Question, first: ArmScores, second: ArmScores) -> None:
        comparison = self.difference(first, second)
        if comparison is not None and comparison.low is not None:
            self.comparisons[question][id(first), id(second)] = comparison

    def adjust(self) -> None:
        """Adjust the levels, each question by itself."""
        for comparisons in self.comparisons.values():
            levels = {key: c.p for key, c in comparisons.items() if c.p is not None}
            self.adjusted |= dict(zip(levels, holm(list(levels.values())), strict=True))

    def counts(self) -> dict[Question, int]:
        """How many levels were adjusted together."""
        return {
            question: sum(key in self.adjusted for key in entries)
            for question, entries in self.comparisons.items()
        }

    def row(
        self,
        ranked: Sequence[ArmScores],
        undistilled: Sequence[ArmScores],
        costs: Mapping[str, ArmCost],
        missing: list[str],
    ) -> AnswerRow:
        best, *others = ranked
        first = best.first
        assert first.nfe is not None and first.sampler is not None
        against = [self._quoted("arms", best, other) for other in others]
        beside = [self._undistilled(best, other) for other in undistilled]
        cost = costs.get(first.arm)
        return AnswerRow(
            backbone=first.backbone,
            sampler=first.sampler,
            nfe=first.nfe,
            best=first.arm,
            memory=first.memory,
            mean=self.value(best),
            passes=dict(first.passes),
            setting=first.setting,
            seeds=len(best.seeds),
            worth=_worth([entry.verdict for entry in beside]),
            undistilled=beside,
            runner_up=others[0].first.arm if others else None,
            **(against[0][0] if against else _NOTHING).model_dump(),
            # best of all, not only better than the next
            verdict=_leads([side for _, side in against], missing),
            p_best=_largest([quoted.p_holm for quoted, _ in against]),
            missing=missing,
            cost=AnswerCost(
                updates=cost.updates if cost else None,
                flops=cost.flops if cost else None,
                seconds=cost.seconds if cost else None,
            ),
        )

    def _undistilled(self, best: ArmScores, other: ArmScores) -> Undistilled:
        quoted, side = self._quoted("undistilled", best, other)
        first = other.first
        assert first.nfe is not None and first.sampler is not None
        return Undistilled(
            arm=first.arm,
            memory=first.memory,
            nfe=first.nfe,
            sampler=first.sampler,
            passes=dict(first.passes),
            mean=self.value(other),
            **quoted.model_dump(),
            verdict=side,
        )

    def _quoted(
        self, question: Question, first: ArmScores, second: ArmScores
    ) -> tuple[Quoted, Side]:
        key = id(first), id(second)
        comparison = self.comparisons[question].get(key)
        if comparison is None:
            return _NOTHING, "not measured"
        p = self.adjusted.get(key)
        sides: dict[str | None, Side] = {"a": "better", "b": "worse", None: "inconclusive"}
        quoted = Quoted(
            difference=comparison.difference, low=comparison.low, high=comparison.high, p_holm=p
        )
        return quoted, sides[comparison.better if p is not None and p < LEVEL else None]

    def _loss(self, arm: ArmScores) -> float:
        mean = self.value(arm)
        assert mean is not None
        if self.metric.target is not None:
            replicates = arm.replicates.get(self.metric.name)
            # each training's distance, as they are compared; not the distance of their mean
            if replicates is not None:
                return float(replicates.distance_to(self.metric.target).values.mean())
            return abs(mean - self.metric.target)
        return -mean if self.metric.direction == "higher" else mean


def _passes(arm: ArmScores) -> float:
    """Passes over a video, guidance included, without cache writes."""
    return (arm.first.nfe or 0) + arm.first.passes.get("guidance", 0)


def _starts(arm: ArmScores, start: str) -> bool:
    return arm.first.method.startswith(f"{start}-")


def _worth(sides: Sequence[Side]) -> Literal["yes", "no", "inconclusive", "not measured"]:
    """Distilling is worth it if the best arm is better than the undistilled network in every
    setting that takes as many passes, and is not if one of those is better."""
    if not sides:
        return "not measured"
    if "worse" in sides:
        return "no"
    return "yes" if all(side == "better" for side in sides) else "inconclusive"


def _largest(levels: Sequence[float | None]) -> float | None:
    """The level at which the best arm is better than every other."""
    numbers = [level for level in levels if level is not None]
    return max(numbers) if numbers and len(numbers) == len(levels) else None


def _leads(
    sides: Sequence[Side], missing: Sequence[str]
) -> Literal["supported", "inconclusive", "only arm"]:
    if missing:
        return "inconclusive"
    if not sides:
        return "only arm"
    return "supported" if all(side == "better" for side in sides) else "inconclusive"
