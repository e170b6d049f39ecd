"""Rows with intervals, paired differences of arms, and verdicts on a study's outcomes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.evaluate.records import EvalResult
from benchmarks.stats.bootstrap import Bootstrap, Interval, Replicates
from benchmarks.study.baselines import NAIVE_REFERENCES, REFERENCES
from benchmarks.study.metric_info import MetricInfo

#: A statistic of features (eigenvalues, for a Frechet distance) is asked for so many resamples
#: only; they place an interval's end within about a tenth of its half width.
FEATURE_RESAMPLES = 250

#: Replicates of statistics of features by what they are of: they are kept beside a report, so that
#: it can be rendered again, and quickly, without the features.
Store = MutableMapping[tuple[str, ...], Replicates]


@dataclass(frozen=True)
class Cell:
    """One arm under one sampling setting: its seeds in order, and replicates of every metric."""

    first: EvalResult
    seeds: tuple[int | None, ...]
    replicates: dict[str, Replicates]

    @property
    def reference(self) -> bool:
        return self.first.method in REFERENCES

    @property
    def setting(self) -> tuple[str, int | None, str | None]:
        return self.first.backbone, self.first.nfe, self.first.sampler


def cells_of(
    measured: Iterable[EvalResult],
    metrics: Sequence[MetricInfo],
    bootstrap: Bootstrap,
    store: Store | None = None,
    part: str = "",
) -> list[Cell]:
    """What differs in nothing but the training seed, together; in the order of appearance.

    `store` remembers replicates of features under the name `part` of what `measured` are.
    """
    groups: dict[tuple[Any, ...], dict[int | None, EvalResult]] = {}
    for item in measured:
        key = (item.arm, item.backbone, item.nfe, item.sampler)
        if item.seed in groups.setdefault(key, {}):
            raise ValueError(f"{key} was measured twice for seed {item.seed}")
        groups[key][item.seed] = item
    ordered = [[group[s] for s in sorted(group, key=lambda s: s or 0)] for group in groups.values()]
    made: Store = {} if store is None else store
    return [_cell(group, metrics, bootstrap, made, part) for group in ordered]


def _cell(
    group: list[EvalResult],
    metrics: Sequence[MetricInfo],
    bootstrap: Bootstrap,
    store: Store,
    part: str,
) -> Cell:
    first = group[0]
    cell = Cell(first, tuple(item.seed for item in group), {})
    for metric in metrics:
        key = (part, first.arm, first.backbone, str(first.nfe), str(first.sampler), metric.name)
        if known := [item.rows[metric.name] for item in group if metric.name in item.rows]:
            # a seed without the metric is a mean without a number, and said so: none of the others
            # may stand for it
            nothing = np.full_like(known[0], np.nan)
            rows = np.stack([item.rows.get(metric.name, nothing) for item in group])
            if rows.shape[1] != bootstrap.rows:
                raise ValueError(
                    f"{first.arm}, {metric.name}: {rows.shape[1]} rows for {bootstrap.rows} prompts"
                )
            if rows.ndim == 2:
                cell.replicates[metric.name] = _replicates(rows, metric, bootstrap)
            else:
                if key not in store:
                    store[key] = _replicates(rows, metric, bootstrap).rounded()
                cell.replicates[metric.name] = store[key]
        elif key in store and len(store[key].values) == len(group):
            cell.replicates[metric.name] = store[key]
    return cell


def _replicates(rows: np.ndarray, metric: MetricInfo, bootstrap: Bootstrap) -> Replicates:
    finite = np.isfinite(rows).reshape(*rows.shape[:2], -1).all(axis=2)
    broken = int((~finite).sum())
    if broken and rows.ndim == 3:  # no statistic of features need bear a NaN
        nothing = np.full((len(rows), min(FEATURE_RESAMPLES, bootstrap.resamples)), np.nan)
        return Replicates(nothing[:, 0], nothing, broken)
    if metric.mean and rows.ndim == 2:  # one matrix product resamples a mean
        return replace(bootstrap.means(rows), not_finite=broken)

    def many(some: np.ndarray) -> np.ndarray:
        assert metric.reduce_many is not None
        return metric.reduce_many(torch.from_numpy(some)).numpy()

    found = bootstrap.statistic(
        rows,
        lambda some: float(metric.reduce(torch.from_numpy(np.ascontiguousarray(some)))),
        FEATURE_RESAMPLES,
        many if metric.reduce_many else None,
    )
    return replace(found, not_finite=broken)


def row(cell: Cell, metric: MetricInfo, bootstrap: Bootstrap) -> dict[str, Any]:
    first = cell.first
    interval = bootstrap.interval(cell.replicates[metric.name], metric.bounds)
    return {
        "arm": first.arm,
        "method": first.method,
        "reference": cell.reference,
        "backbone": first.backbone,
        "memory": first.memory,
        "nfe": first.nfe,
        "sampler": first.sampler,
        "passes": dict(first.passes),
        "setting": None if metric.own_steps is not None else first.setting,
        "metric": metric.name,
        "better": metric.direction,
        "mean": interval.value,
        "low": interval.low,
        "high": interval.high,
        "seeds": interval.seeds,
        "prompts": bootstrap.prompts,
        "videos": bootstrap.rows,
        "seed_sd": interval.seed_sd,
        "prompt_se": interval.prompt_se,
        "not_finite": cell.replicates[metric.name].not_finite,
        "scores": bootstrap.rows * len(cell.seeds),
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
    """`a` minus `b`, or None where one of them lacks the metric.

    Of a metric with a target the difference is that of the distances to it.
    """
    if metric.name not in a.replicates or metric.name not in b.replicates:
        return None
    paired = a.seeds == b.seeds or a.reference or b.reference
    first, second, bounds = a.replicates[metric.name], b.replicates[metric.name], metric.bounds
    if metric.target is not None:
        first, second = first.distance_to(metric.target), second.distance_to(metric.target)
        bounds = None
    interval = bootstrap.difference(first, second, paired, bounds)
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
        "better": metric.direction,
        "difference": interval.value,
        "low": interval.low,
        "high": interval.high,
        "p": interval.p if np.isfinite(interval.low) else None,
        "clear": interval.clear,
        "favours": _favours(interval, metric),
        "seeds": seeds,
        "paired_by_seed": paired,
    }


def _favours(interval: Interval, metric: MetricInfo) -> str | None:
    if not interval.clear or metric.direction == "none":
        return None
    return "a" if (interval.value > 0) == (metric.direction == "higher") else "b"


def mark_winners(
    rows: list[dict[str, Any]],
    comparisons: Sequence[Mapping[str, Any]],
    metrics: Sequence[MetricInfo],
) -> None:
    """A winner is clear of every other distilled arm of its setting, and there is another. Only
    metrics of quality have winners."""
    judging = {metric.name for metric in metrics if metric.kind == "quality"}

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
        row["winner"] = row["metric"] in judging and bool(against) and all(against)


def judge(
    outcome: Mapping[str, Any],
    cells: Sequence[Cell],
    metrics: Mapping[str, MetricInfo],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """An outcome of the study's file with the comparison that it names, if that was measured.

    Its verdict needs all outcomes together; see `benchmarks.stats.verdicts.decide`.
    """
    metric = metrics.get(outcome["metric"])
    if metric and metric.own_steps is not None:  # it has one way of sampling, its own
        cells = [cell for cell in cells if metric.name in cell.replicates]
        outcome = {**outcome, "sampler": None}
    a = find_cell(cells, outcome["a"], outcome)
    b = find_cell(cells, outcome["b"], outcome, like=a)
    entry = compare(a, b, metric, bootstrap) if a and b and metric else None
    return {**outcome, **entry} if entry else dict(outcome)


def find_cell(
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
