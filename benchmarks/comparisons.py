"""Rows with intervals, paired differences of arms, and verdicts on a study's outcomes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.records import NAIVE_REFERENCES, REFERENCES, Measured, MetricInfo
from benchmarks.statistics import Bootstrap, Interval, Replicates

#: A statistic of features (eigenvalues, for a Frechet distance) is asked for so many resamples
#: only; they place an interval's end within about a tenth of its half width.
FEATURE_RESAMPLES = 250


@dataclass(frozen=True)
class Cell:
    """One arm under one sampling setting: its seeds in order, and replicates of every metric."""

    first: Measured
    seeds: tuple[int | None, ...]
    replicates: dict[str, Replicates]

    @property
    def reference(self) -> bool:
        return self.first.method in REFERENCES

    @property
    def setting(self) -> tuple[str, int | None, str | None]:
        return self.first.backbone, self.first.nfe, self.first.sampler


def cells_of(
    measured: Iterable[Measured], metrics: Sequence[MetricInfo], bootstrap: Bootstrap
) -> list[Cell]:
    """What differs in nothing but the training seed, together; in the order of appearance."""
    groups: dict[tuple[Any, ...], dict[int | None, Measured]] = {}
    for item in measured:
        key = (item.arm, item.backbone, item.nfe, item.sampler)
        if item.seed in groups.setdefault(key, {}):
            raise ValueError(f"{key} was measured twice for seed {item.seed}")
        groups[key][item.seed] = item
    ordered = [[group[s] for s in sorted(group, key=lambda s: s or 0)] for group in groups.values()]
    return [_cell(group, metrics, bootstrap) for group in ordered]


def _cell(group: list[Measured], metrics: Sequence[MetricInfo], bootstrap: Bootstrap) -> Cell:
    replicates = {}
    for metric in metrics:
        if all(metric.name in item.rows for item in group):
            rows = np.stack([item.rows[metric.name] for item in group])
            if rows.shape[1] != bootstrap.rows:
                raise ValueError(
                    f"{group[0].arm}, {metric.name}: {rows.shape[1]} rows for "
                    f"{bootstrap.rows} prompts"
                )
            replicates[metric.name] = _replicates(rows, metric, bootstrap)
    return Cell(group[0], tuple(item.seed for item in group), replicates)


def _replicates(rows: np.ndarray, metric: MetricInfo, bootstrap: Bootstrap) -> Replicates:
    # most metrics of scores are means, which one matrix product resamples
    if is_mean(metric, rows[0], bootstrap):
        return bootstrap.means(rows)

    def many(some: np.ndarray) -> np.ndarray:
        assert metric.reduce_many is not None
        return metric.reduce_many(torch.from_numpy(some)).numpy()

    return bootstrap.statistic(
        rows,
        lambda some: _reduce(metric, some),
        FEATURE_RESAMPLES,
        many if metric.reduce_many else None,
    )


def is_mean(metric: MetricInfo, rows: np.ndarray, bootstrap: Bootstrap) -> bool:
    """Whether a metric is the mean of its scores: what agrees with it on all `rows` `[P]` and on a
    few resamples is taken for one."""
    if rows.ndim != 1:
        return False
    probes = [rows, *(rows[pick] for pick in bootstrap.picks[:8])]
    return all(
        math.isclose(_reduce(metric, some), some.mean(), rel_tol=1e-5, abs_tol=1e-7)
        for some in probes
    )


def _reduce(metric: MetricInfo, rows: np.ndarray) -> float:
    return float(metric.reduce(torch.from_numpy(np.ascontiguousarray(rows))))


def row(cell: Cell, metric: MetricInfo, bootstrap: Bootstrap) -> dict[str, Any]:
    first, interval = cell.first, bootstrap.interval(cell.replicates[metric.name])
    return {
        "arm": first.arm,
        "method": first.method,
        "reference": cell.reference,
        "backbone": first.backbone,
        "memory": first.memory,
        "nfe": first.nfe,
        "sampler": first.sampler,
        "passes": dict(first.passes),
        "metric": metric.name,
        "better": metric.better,
        "mean": interval.value,
        "low": interval.low,
        "high": interval.high,
        "seeds": interval.seeds,
        "prompts": bootstrap.prompts,
        "videos": bootstrap.rows,
        "seed_sd": interval.seed_sd,
        "prompt_se": interval.prompt_se,
        "winner": False,
    }


def pairs(cells: Sequence[Cell]) -> Iterable[tuple[Cell, Cell]]:
    """Every two distilled arms, and each of them with naive references, setting by setting."""
    for a, b in itertools.combinations(cells, 2):
        if a.setting != b.setting or (a.reference and b.reference):
            continue
        if a.reference:
            a, b = b, a
        if not b.reference or b.first.method in NAIVE_REFERENCES:
            yield a, b


def compare(a: Cell, b: Cell, metric: MetricInfo, bootstrap: Bootstrap) -> dict[str, Any] | None:
    """`a` minus `b`, or None where one of them lacks the metric."""
    if metric.name not in a.replicates or metric.name not in b.replicates:
        return None
    paired = a.seeds == b.seeds or a.reference or b.reference
    interval = bootstrap.difference(a.replicates[metric.name], b.replicates[metric.name], paired)
    if a.reference or b.reference:  # a reference is one network, its row goes with every seed
        seeds = max(len(a.seeds), len(b.seeds))
    else:
        seeds = interval.seeds
    return {
        "a": a.first.arm,
        "b": b.first.arm,
        "backbone": a.first.backbone,
        "nfe": a.first.nfe,
        "sampler": a.first.sampler,
        "metric": metric.name,
        "better": metric.better,
        "difference": interval.value,
        "low": interval.low,
        "high": interval.high,
        "clear": interval.clear,
        "favours": _favours(interval, metric),
        "seeds": seeds,
        "paired_by_seed": paired,
    }


def _favours(interval: Interval, metric: MetricInfo) -> str | None:
    if not interval.clear:
        return None
    return "a" if (interval.value > 0) == (metric.better == "higher") else "b"


def mark_winners(rows: list[dict[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> None:
    """A winner is clear of every other distilled arm of its setting, and there is another."""

    def key(entry: Mapping[str, Any], arm: str) -> tuple[Any, ...]:
        return entry["metric"], entry["backbone"], entry["nfe"], entry["sampler"], arm

    distilled = {key(row, row["arm"]) for row in rows if not row["reference"]}
    beaten: dict[tuple[Any, ...], list[bool]] = {}
    for entry in comparisons:
        a, b = key(entry, entry["a"]), key(entry, entry["b"])
        if a in distilled and b in distilled:
            beaten.setdefault(a, []).append(entry["favours"] == "a")
            beaten.setdefault(b, []).append(entry["favours"] == "b")
    for row in rows:
        against = beaten.get(key(row, row["arm"]), [])
        row["winner"] = bool(against) and all(against)


def verdict(
    outcome: Mapping[str, Any],
    cells: Sequence[Cell],
    metrics: Mapping[str, MetricInfo],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """An outcome of the study's file with what was found."""
    entry = None
    a = _find(cells, outcome["a"], outcome)
    b = _find(cells, outcome["b"], outcome, like=a)
    metric = metrics.get(outcome["metric"])
    if a and b and metric:
        entry = compare(a, b, metric, bootstrap)
    if entry is None:
        return {**outcome, "verdict": "not measured"}
    found = {"a": "shown", "b": "opposite", None: "not shown"}[entry["favours"]]
    return {**outcome, **entry, "verdict": found}


def _find(
    cells: Sequence[Cell], arm: str, outcome: Mapping[str, Any], like: Cell | None = None
) -> Cell | None:
    """The arm under the outcome's setting; a reference with one setting only matches any."""
    named = [cell for cell in cells if cell.first.arm == arm]
    if like:
        named = [cell for cell in named if cell.first.backbone == like.first.backbone] or named
    sampler = outcome.get("sampler") or (like.first.sampler if like else None)
    exact = [
        cell
        for cell in named
        if cell.first.nfe == outcome["nfe"] and (sampler in (None, cell.first.sampler))
    ]
    if exact:
        return exact[0]
    return named[0] if len(named) == 1 and named[0].reference else None
