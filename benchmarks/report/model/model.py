"""The contents of a report, arranged: arms in order, settings, tables by NFE and of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.model.formats import decimals, in_steps, listed, percent
from benchmarks.stats.costs import OFF_BUDGET, off_budget
from benchmarks.stats.model.entries import Comparison, DriftCurve, MetricEntry, ScoreRow
from benchmarks.stats.model.schema import FailedTraining, HypothesisResult, Results
from benchmarks.study.entries.baselines import FULL_BASELINES, STEPPED_BASELINES


@dataclass(frozen=True)
class Setting:
    """Arms are compared under the same backbone and sampler."""

    backbone: str
    sampler: str | None

    def title(self, among: Sequence[Setting]) -> str:
        """How it differs from the other settings; empty where there is no other."""
        parts = []
        if len({setting.backbone for setting in among}) > 1:
            parts.append(self.backbone)
        if len({setting.sampler for setting in among}) > 1:
            parts.append(f"{self.sampler} sampler")
        return ", ".join(parts)


@dataclass(frozen=True)
class TableLine:
    """A line of a table: an arm's rows by NFE, or one row for an arm without a choice of it."""

    label: str
    arm: str
    baseline: bool
    cells: list[ScoreRow | None]
    single: ScoreRow | None = None

    @property
    def extra_passes(self) -> str:
        """The cost of a video beside the NFE (guidance and cache writes, shown separately), and a
        sampling setting of the arm's own."""
        rows = [row for row in [self.single, *self.cells] if row]
        passes: dict[str, float] = rows[0].passes if rows else {}
        parts = ["2× passes for guidance"] if passes.get("guidance") else []
        if memory := passes.get("memory"):
            parts.append(f"+{memory:.2g} KV-cache-write pass{'' if memory == 1 else 'es'}")
        settings = dict.fromkeys(row.setting for row in rows if row.setting)
        parts += [f"own setting: {text}" for text in settings]
        return "; ".join(parts)


@dataclass(frozen=True)
class Table:
    """A metric under one setting."""

    metric: MetricEntry
    setting: Setting
    nfes: list[int]
    lines: list[TableLine]
    decimals: int


@dataclass(frozen=True)
class Pair:
    a: str
    b: str
    cells: list[Comparison | None]


@dataclass(frozen=True)
class PairTable:
    """Differences of arms in a metric under one setting, by NFE."""

    metric: MetricEntry
    setting: Setting
    nfes: list[int]
    pairs: list[Pair]
    decimals: int


@dataclass(frozen=True)
class Panel:
    """A part of a plot: the arms and baselines that are drawn in it."""

    title: str
    arms: frozenset[str]


class View:
    """results.json, arranged for a report."""

    def __init__(self, results: Results) -> None:
        self.results = results
        rows = results.rows
        trained = [row for row in rows if not row.baseline]
        stepped = [row for row in rows if row.arm not in ("real", *FULL_BASELINES)]
        costed = [cost.arm for cost in results.arms]
        #: Trained arms, those without any result last.
        self.arms: list[str] = list(dict.fromkeys([row.arm for row in trained] + costed))
        self.measured_arms = list(dict.fromkeys(row.arm for row in trained))
        self.metrics = results.metrics
        # a metric with rollouts of its own has no part in the numbers of steps that are studied
        self._own = {metric.name for metric in self.metrics if metric.own_steps is not None}
        chosen = [row for row in stepped if row.metric not in self._own]
        self.nfes = sorted({row.nfe for row in chosen if row.nfe is not None})
        self.settings = list(
            dict.fromkeys(Setting(row.backbone, row.sampler) for row in chosen or stepped)
        )
        # sde is how students are trained; ode beside it is a second look
        self.settings.sort(key=lambda setting: setting.sampler != "sde")
        self.seeds = max((row.seeds for row in trained), default=0)
        self._rows = {
            (row.metric, row.arm, row.backbone, self._sampler(row), row.nfe): row for row in rows
        }

    def _sampler(self, entry: ScoreRow | Comparison) -> str | None:
        """The sampler that distinguishes entries of a metric; own rollouts have only one."""
        return None if entry.metric in self._own else entry.sampler

    def _steps(self, metric: str) -> list[int]:
        """The numbers of steps of a metric."""
        if metric not in self._own:
            return self.nfes
        rows = [row for row in self.results.rows if row.metric == metric]
        return sorted({row.nfe for row in rows if row.nfe is not None})

    def metric(self, name: str) -> MetricEntry:
        drift = self.results.drift
        of_long = drift.metrics if drift else []
        return next(metric for metric in [*self.metrics, *of_long] if metric.name == name)

    def metric_of(self, hypothesis: HypothesisResult) -> MetricEntry:
        """How the metric of a hypothesis is read: a slope has no target."""
        metric, comparison = self.metric(hypothesis.metric), hypothesis.comparison
        if comparison and comparison.direction == "none":
            return metric.model_copy(update={"direction": "none"})
        return metric

    def kind_mark(self, name: str) -> str:
        """Behind a metric's name: what it is if it does not judge quality."""
        kinds = {metric.name: metric.kind for metric in self.metrics}
        kind = kinds.get(name, "quality")
        return "" if kind == "quality" else f" ({kind})"

    def not_finite(self) -> list[str]:
        """Rows with scores that are not finite, in words. A metric with rollouts of its own that
        has none for a network (of a memory, say) does not apply to it."""
        lines = []
        for row in self.results.rows:
            applies = row.metric not in self._own or row.not_finite != row.scores
            if row.not_finite and applies:
                lines.append(_broken(row, row.not_finite, row.scores or 0, ""))
        drift = self.results.drift
        for curve in drift.curves if drift else ():
            points = [point for point in curve.points if point.not_finite]
            if points:
                count = sum(point.not_finite for point in points)
                of = sum(point.scores or 0 for point in points)
                lines.append(_broken(curve, count, of, f", {len(points)} clips of long videos"))
        return lines

    def off_budget(self) -> str:
        """A sentence about arms that cost something else than their budget; empty without any."""
        arms = [f"{arm} ({percent(share)})" for arm, share in off_budget(self.results.arms)]
        if not arms:
            return ""
        return (
            f"Recorded FLOPs are more than {OFF_BUDGET:.0%} off the budget: {listed(arms)}; these "
            "trainings did not cost what they were given."
        )

    def trained(self, times: int) -> list[str]:
        """The arms with so many training seeds."""
        seeds: dict[str, int] = {}
        for row in self.results.rows:
            if not row.baseline:
                seeds[row.arm] = max(seeds.get(row.arm, 0), row.seeds)
        return [arm for arm, count in seeds.items() if count == times]

    def panels(self, most: int) -> list[Panel]:
        """One, or with more arms than `most` one for each memory. Real videos and networks without
        a memory are in all of them."""
        memories = {row.arm: row.memory for row in self.results.rows}
        kinds = dict.fromkeys(memories.get(arm) for arm in self.measured_arms)
        everywhere = {arm for arm in memories if arm in ("real", *FULL_BASELINES)}
        everywhere |= {arm for arm, memory in memories.items() if memory is None}
        if len(self.arms) <= most or len(kinds) < 2:
            return [Panel("", frozenset([*memories, *self.arms]))]
        return [
            Panel(
                f"memory {kind}" if kind else "no memory",
                frozenset(everywhere | {arm for arm, memory in memories.items() if memory == kind}),
            )
            for kind in kinds
        ]

    @property
    def shown_nfe(self) -> int | None:
        """The number of steps that a single picture shows: 4, or the nearest."""
        return min(self.nfes, key=lambda nfe: abs(math.log2(nfe / 4)), default=None)

    def row(self, metric: str, arm: str, setting: Setting, nfe: int | None) -> ScoreRow | None:
        sampler = None if metric in self._own else setting.sampler
        return self._rows.get((metric, arm, setting.backbone, sampler, nfe))

    def baseline(self, metric: str, arm: str, setting: Setting) -> ScoreRow | None:
        """The row of `real` or `teacher`, which have one way of sampling."""
        rows = [row for row in self.results.rows if (row.metric, row.arm) == (metric, arm)]
        same = [row for row in rows if row.backbone == setting.backbone]
        # real videos and the teacher are every backbone's; a student's start is its own
        return next(iter(same or (rows if arm != "initial" else [])), None)

    def table(self, metric: MetricEntry, setting: Setting) -> Table:
        name = metric.name
        steps = self._steps(name)
        by_arm = {
            arm: {nfe: self.row(name, arm, setting, nfe) for nfe in steps}
            for arm in (*self.arms, *STEPPED_BASELINES)
        }
        nfes = [nfe for nfe in steps if any(cells[nfe] for cells in by_arm.values())]
        lines = [
            TableLine(arm, arm, arm in STEPPED_BASELINES, [cells[nfe] for nfe in nfes])
            for arm, cells in by_arm.items()
            if any(cells.values())
        ]
        for arm in (*FULL_BASELINES, "real"):
            if row := self.baseline(name, arm, setting):
                label = f"{arm}, {row.nfe} steps" if row.nfe else arm
                lines.append(TableLine(label, arm, True, [], row))
        means = [cell.mean for line in lines for cell in [line.single, *line.cells] if cell]
        return Table(metric, setting, nfes, lines, decimals(means))

    def pair_table(self, metric: MetricEntry, setting: Setting) -> PairTable:
        by_pair: dict[tuple[str, str], dict[int, Comparison]] = {}
        sampler = None if metric.name in self._own else setting.sampler
        for entry in self.results.comparisons:
            here = (entry.metric, entry.backbone, self._sampler(entry))
            if here == (metric.name, setting.backbone, sampler):
                by_pair.setdefault((entry.a, entry.b), {})[entry.nfe] = entry
        steps = self._steps(metric.name)
        nfes = [nfe for nfe in steps if any(nfe in cells for cells in by_pair.values())]
        pairs = [Pair(a, b, [cells.get(n) for n in nfes]) for (a, b), cells in by_pair.items()]
        differences = [cell.difference for pair in pairs for cell in pair.cells if cell]
        return PairTable(metric, setting, nfes, pairs, decimals(differences))

    def tables(self, settings: Sequence[Setting] | None = None) -> list[Table]:
        """Of every metric, under some settings or all."""
        tables = [self.table(metric, s) for metric, s in self.shown_pairs(settings)]
        return [table for table in tables if table.nfes]

    def pair_tables(self, settings: Sequence[Setting] | None = None) -> list[PairTable]:
        tables = [self.pair_table(metric, s) for metric, s in self.shown_pairs(settings)]
        return [table for table in tables if table.pairs]

    def shown_pairs(
        self, settings: Sequence[Setting] | None = None
    ) -> list[tuple[MetricEntry, Setting]]:
        """Metrics with the settings in which they differ."""
        chosen = self.settings if settings is None else settings
        firsts = {s.backbone: s for s in reversed(self.settings)}.values()
        return [
            (metric, s)
            for metric in self.metrics
            for s in chosen
            if metric.name not in self._own or s in firsts
        ]

    def failures(self) -> list[tuple[str, FailedTraining]]:
        return [(arm.arm, error) for arm in self.results.arms for error in arm.errors]

    def provenance(self) -> list[tuple[str, Any]]:
        """Facts by name, those that there are."""
        return [(k, v) for k, v in sorted(self.results.provenance.to_json().items()) if v]


def _broken(entry: ScoreRow | DriftCurve, count: int, of: int, what: str) -> str:
    where = f" at {in_steps(entry.nfe)} ({entry.sampler})" if entry.nfe else ""
    return f"{count} of {of} scores of {entry.arm}{where} in {entry.metric}{what}"
