"""Intervals of features in a report whose features were not kept.

What its results.json says of such a metric is carried over as it is, and marked; a comparison that
it does not hold cannot be made without the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from benchmarks.stats.intervals.arm_scores import ArmScores
from benchmarks.stats.model.entries import (
    Comparison,
    Drift,
    DriftComparison,
    DriftCurve,
    DriftRow,
    Entry,
    MetricEntry,
    ScoreRow,
)
from benchmarks.stats.model.schema import Results
from benchmarks.study.entries.config import Hypothesis
from benchmarks.study.metric_info import MetricInfo

#: Metric, arm, backbone, NFE and sampler.
_Key = tuple[str, str, str, int | None, str | None]
_Row = TypeVar("_Row", bound=Entry)
_Long = TypeVar("_Long", DriftCurve, DriftRow, DriftComparison)


class Carried:
    """The rows, comparisons and drift of an older results.json."""

    def __init__(self, old: Results) -> None:
        self.old = old
        self._rows = {_key(row, row.arm): row for row in old.rows}
        self._comparisons = {(_key(c, c.a), c.b): c for c in old.comparisons}

    def row(self, arm: ArmScores, metric: MetricInfo) -> ScoreRow | None:
        row = self._rows.get((metric.name, arm.first.arm, *arm.setting))
        return row and row.model_copy(update={"carried": True})

    def value(self, arm: ArmScores, metric: MetricInfo) -> float | None:
        row = self.row(arm, metric)
        return row.mean if row else None

    def comparison(self, a: ArmScores, b: ArmScores, metric: MetricInfo) -> Comparison | None:
        """`a` minus `b`, in whichever order it was made."""
        if a.setting != b.setting:
            return None
        comparison = self._comparisons.get(((metric.name, a.first.arm, *a.setting), b.first.arm))
        if comparison is not None:
            return _marked(comparison)
        comparison = self._comparisons.get(((metric.name, b.first.arm, *b.setting), a.first.arm))
        return None if comparison is None else _marked(_reversed(comparison))

    def hypothesis(self, hypothesis: Hypothesis) -> Comparison | None:
        """The comparison that the older file has for a hypothesis."""
        for entry in self.old.hypotheses:
            same = all(
                getattr(entry, key) == getattr(hypothesis, key)
                for key in ("a", "b", "metric", "nfe", "sampler", "length", "slope")
            )
            if same and entry.comparison and entry.comparison.difference is not None:
                return _marked(entry.comparison)
        return None

    def with_drift(self, drift: Drift, metrics: Sequence[MetricInfo]) -> Drift:
        """`drift` with those of `metrics` that it lacks."""
        old = self.old.drift
        assert old is not None
        there = {curve.metric for curve in drift.curves}
        changes = {
            "metrics": [MetricEntry.of(metric) for metric in metrics],
            "curves": [*drift.curves, *_missing(old.curves, there)],
            "values": [*drift.values, *_missing(old.values, there)],
            "comparisons": [*drift.comparisons, *_missing(old.comparisons, there)],
        }
        return drift.model_copy(update=changes)


def _key(entry: ScoreRow | Comparison, arm: str) -> _Key:
    return entry.metric, arm, entry.backbone, entry.nfe, entry.sampler


def _missing(entries: Sequence[_Long], there: set[str]) -> list[_Long]:
    return [_marked(entry) for entry in entries if entry.metric not in there]


def _marked(entry: _Row) -> _Row:
    return entry.model_copy(update={"carried": True})


def _reversed(entry: Comparison) -> Comparison:
    """`b` minus `a`."""
    sides = {"a": "b", "b": "a", None: None}
    changes = {
        "a": entry.b,
        "b": entry.a,
        "difference": _minus(entry.difference),
        "low": _minus(entry.high),
        "high": _minus(entry.low),
        "better": sides[entry.better],
    }
    return entry.model_copy(update=changes)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
