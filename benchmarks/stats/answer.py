"""The table at the top of a report: at each number of steps, is distilling worth it, and who leads?

All of it by one metric, the study's primary one, under one sampler of the study (sde, with which
students train, where there is a choice). The table asks two questions, and a statement counts as
shown where Holm's adjusted level is below 0.05 over every comparison that could have been quoted in
answer to its question, at all numbers of steps: each arm with each undistilled network that takes
as many passes (writes of a memory, which guidance doubles, come on top), and each two arms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.stats.bootstrap import holm
from benchmarks.stats.comparisons import Cell
from benchmarks.stats.verdicts import LEVEL
from benchmarks.study.baselines import STEPPED_REFERENCES
from benchmarks.study.metric_info import MetricInfo
from salt_zoo.core.errors import MissingPackage, ZooError, did_you_mean

#: What one cell is less another by the primary metric, as `comparisons.compare` returns it.
Difference = Callable[[Cell, Cell], dict[str, Any] | None]
#: A cell's mean by the primary metric; None where there is none.
Value = Callable[[Cell], float | None]


def primary_metric(study: Mapping[str, Any], metrics: Sequence[MetricInfo]) -> MetricInfo | None:
    """The metric that the study names, or the first of quality that looks at its videos."""
    named = study.get("primary_metric")
    fitting = [m for m in metrics if m.kind == "quality" and m.own_steps is None]
    return next((m for m in fitting if named in (None, m.name)), None)


def check_primary(
    named: str, labels: Iterable[str], make: Callable[[str], MetricInfo], where: str
) -> None:
    """The metric that a study names must be one that can choose a best arm; `make` makes it.

    Raises:
        ZooError: it is not measured, or does not judge the study's videos.
    """
    known = list(labels)
    if named not in known:
        raise ZooError(
            f"{where}: primary_metric: {named!r} is not of evaluation.metrics; "
            f"{did_you_mean(named, known)}"
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
    cells: Sequence[Cell],
    metric: MetricInfo,
    costs: Sequence[Mapping[str, Any]],
    value: Value,
    difference: Difference,
) -> dict[str, Any]:
    """What results.json holds under `answer`: a row for each backbone and number of steps."""
    table = _Table(metric, value, difference)
    settings = _settings(cells, value)
    made = [table.measure(cells, *setting) for setting in settings]
    table.adjust()
    by_arm = {cost["arm"]: cost for cost in costs}
    return {
        "metric": metric.name,
        "comparisons": {question: len(made) for question, made in table.entries.items()},
        "rows": [table.row(*found, by_arm) for found in made],
    }


def _settings(cells: Sequence[Cell], value: Value) -> list[tuple[str, str, int]]:
    """Backbones with their sampler (sde, with which students train, where there is a choice) and
    numbers of steps at which an arm has a value."""
    trained = [cell for cell in cells if not cell.reference and value(cell) is not None]
    found = []
    for backbone in dict.fromkeys(cell.first.backbone for cell in trained):
        own = [cell.first for cell in trained if cell.first.backbone == backbone]
        samplers = sorted({str(one.sampler) for one in own}, key=lambda name: name != "sde")
        steps = sorted({one.nfe for one in own if one.sampler == samplers[0] and one.nfe})
        found += [(backbone, samplers[0], nfe) for nfe in steps]
    return found


class _Table:
    """The comparisons of the table, each made once, and their adjusted levels."""

    def __init__(self, metric: MetricInfo, value: Value, difference: Difference) -> None:
        self.metric, self.value, self.difference = metric, value, difference
        #: By question: `worth` of distilling, and which arm `leads`.
        self.entries: dict[str, dict[tuple[int, int], dict[str, Any]]] = {"worth": {}, "leads": {}}
        self.adjusted: dict[tuple[int, int], float] = {}

    def measure(
        self, cells: Sequence[Cell], backbone: str, sampler: str, nfe: int
    ) -> tuple[list[Cell], list[Cell]]:
        """The arms of a setting, the best first, and the undistilled networks beside them."""
        here = [c for c in cells if c.first.backbone == backbone and self.value(c) is not None]
        arms = [c for c in here if not c.reference and c.setting == (backbone, nfe, sampler)]
        arms.sort(key=self._loss)
        stepped = [cell for cell in here if cell.first.method in STEPPED_REFERENCES]
        # a causal student starts from a network of its own kind
        start = "initial" if any(_is(c, "initial") for c in stepped) else "teacher"
        stepped = [
            cell
            for cell in stepped
            # at one step all samplers are one
            if _is(cell, start) and (cell.first.nfe != 1 or cell.first.sampler == sampler)
        ]
        for first, second in itertools.combinations(arms, 2):
            self._compare("leads", first, second)
        for arm, other in itertools.product(arms, stepped):
            if _passes(arm) == _passes(other):
                self._compare("worth", arm, other)
        return arms, [cell for cell in stepped if arms and _passes(cell) == _passes(arms[0])]

    def _compare(self, question: str, first: Cell, second: Cell) -> None:
        entry = self.difference(first, second)
        if entry is not None and entry["p"] is not None:
            self.entries[question][id(first), id(second)] = entry

    def adjust(self) -> None:
        """Adjust the levels, each question by itself."""
        for made in self.entries.values():
            levels = holm([entry["p"] for entry in made.values()])
            self.adjusted |= dict(zip(made, levels, strict=True))

    def row(
        self,
        arms: Sequence[Cell],
        undistilled: Sequence[Cell],
        costs: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        best, *others = arms
        first = best.first
        against = [self._quoted("leads", best, other) for other in others]
        cost = costs.get(first.arm, {})
        beside = [
            {
                "arm": cell.first.arm,
                "nfe": cell.first.nfe,
                "sampler": cell.first.sampler,
                "passes": dict(cell.first.passes),
                "mean": self.value(cell),
                **self._quoted("worth", best, cell),
            }
            for cell in undistilled
        ]
        return {
            "backbone": first.backbone,
            "sampler": first.sampler,
            "nfe": first.nfe,
            "best": first.arm,
            "mean": self.value(best),
            "passes": dict(first.passes),
            "setting": first.setting,
            "seeds": len(best.seeds),
            "worth": _worth([entry["verdict"] for entry in beside]),
            "undistilled": beside,
            "runner_up": others[0].first.arm if others else None,
            **(against[0] if against else self._nothing()),
            # best of all, not only better than the next
            "verdict": _leads([entry["verdict"] for entry in against]),
            "p_of_all": _largest([entry["p_holm"] for entry in against]),
            "cost": {key: cost.get(key) for key in ("updates", "flops", "seconds")},
        }

    def _quoted(self, question: str, first: Cell, second: Cell) -> dict[str, Any]:
        key = id(first), id(second)
        entry = self.entries[question].get(key)
        if entry is None:
            return self._nothing()
        p = self.adjusted[key]
        side = entry["favours"] if p < LEVEL else None
        verdict = {"a": "better", "b": "worse", None: "not shown"}[side]
        found = {name: entry[name] for name in ("difference", "low", "high")}
        return {**found, "p_holm": p, "verdict": verdict}

    @staticmethod
    def _nothing() -> dict[str, Any]:
        return {
            "difference": None, "low": None, "high": None, "p_holm": None,
            "verdict": "not measured",
        }  # fmt: skip

    def _loss(self, cell: Cell) -> float:
        mean = self.value(cell)
        assert mean is not None
        if self.metric.target is not None:
            known = cell.replicates.get(self.metric.name)
            # each training's distance, as they are compared; not the distance of their mean
            if known is not None:
                return float(known.distance_to(self.metric.target).values.mean())
            return abs(mean - self.metric.target)
        return -mean if self.metric.direction == "higher" else mean


def _passes(cell: Cell) -> float:
    """Passes over a video, guidance included, without writes of a memory."""
    return (cell.first.nfe or 0) + cell.first.passes.get("guidance", 0)


def _is(cell: Cell, start: str) -> bool:
    return cell.first.method.startswith(f"{start}-")


def _worth(verdicts: Sequence[str]) -> str:
    """Distilling is worth it if the best arm is better than every undistilled network that takes as
    many passes, and is not if one of those is better."""
    if not verdicts:
        return "not measured"
    if "worse" in verdicts:
        return "no"
    return "yes" if all(verdict == "better" for verdict in verdicts) else "not shown"


def _largest(levels: Sequence[float | None]) -> float | None:
    """The level at which the best arm is better than every other."""
    known = [level for level in levels if level is not None]
    return max(known) if known and len(known) == len(levels) else None


def _leads(verdicts: Sequence[str]) -> str:
    if not verdicts:
        return "only arm"
    return "shown" if all(verdict == "better" for verdict in verdicts) else "not shown"
