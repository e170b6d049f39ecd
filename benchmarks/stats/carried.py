"""Intervals of features in a report that was made before their replicates were kept (schema 1).

What its results.json says of such a metric is carried over as it is, and marked; a comparison that
it did not make cannot be made without the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.stats.bootstrap import level
from benchmarks.stats.comparisons import Cell
from benchmarks.study.metric_info import MetricInfo


class Carried:
    """The rows, comparisons and drift of an older results.json."""

    def __init__(self, old: Mapping[str, Any]) -> None:
        self.old = old
        self._rows = {self._of_row(row): row for row in old["rows"]}
        self._comparisons = {
            (*self._of_row({**entry, "arm": entry["a"]}), entry["b"]): entry
            for entry in old["comparisons"]
        }

    @staticmethod
    def _of_row(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(entry[key] for key in ("metric", "arm", "backbone", "nfe", "sampler"))

    def row(self, cell: Cell, metric: MetricInfo) -> dict[str, Any] | None:
        found = self._rows.get((metric.name, cell.first.arm, *cell.setting))
        if found is None:
            return None
        return {"not_finite": 0, "scores": None, **found, "carried": True}

    def value(self, cell: Cell, metric: MetricInfo) -> float | None:
        row = self.row(cell, metric)
        return row["mean"] if row else None

    def comparison(self, a: Cell, b: Cell, metric: MetricInfo) -> dict[str, Any] | None:
        """`a` minus `b`, in whichever order it was made."""
        if a.setting != b.setting:
            return None
        found = self._comparisons.get((metric.name, a.first.arm, *a.setting, b.first.arm))
        if found is not None:
            return _with_level(found)
        found = self._comparisons.get((metric.name, b.first.arm, *b.setting, a.first.arm))
        return None if found is None else _with_level(_turned(found))

    def outcome(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """An outcome with the comparison that the older file has for it."""
        for entry in self.old["primary"]:
            same = all(
                (entry.get(key) or None) == (outcome.get(key) or None)  # the oldest had no length
                for key in ("a", "b", "metric", "nfe", "sampler", "length", "slope")
            )
            if same and entry.get("difference") is not None:
                known = {key: value for key, value in entry.items() if key not in outcome}
                return _with_level({**outcome, **known})
        return dict(outcome)

    def add_to_drift(self, section: dict[str, Any], metrics: Sequence[MetricInfo]) -> None:
        """Add those of `metrics` that `section` lacks."""
        there = {entry["metric"] for entry in section["curves"]}
        section["metrics"] = [metric.plain() for metric in metrics]
        for name in ("curves", "values", "comparisons"):
            for entry in self.old["drift"][name]:
                if entry["metric"] in there:
                    continue
                if name == "comparisons":
                    section[name].append(_with_level(entry))
                else:
                    section[name].append({"not_finite": 0, **entry, "carried": True})


def _turned(entry: Mapping[str, Any]) -> dict[str, Any]:
    sides = {"a": "b", "b": "a", None: None}
    low, high = entry["low"], entry["high"]
    return {
        **entry,
        "a": entry["b"],
        "b": entry["a"],
        "difference": -entry["difference"],
        "low": None if high is None else -high,
        "high": None if low is None else -low,
        "favours": sides[entry["favours"]],
    }


def _with_level(entry: Mapping[str, Any]) -> dict[str, Any]:
    """With the level that its interval implies; the degrees of freedom are those of the seeds
    alone, the fewest that it can have had."""
    p = None
    if entry["difference"] is not None and entry["low"] is not None:
        freedom = max(1, entry["seeds"] - 1)
        p = level(entry["difference"], entry["low"], entry["high"], freedom)
    return {**entry, "p": p, "carried": True}
