"""The scores of an arm over its training seeds, with bootstrap replicates of every metric."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.evaluate.records import EvalResult
from benchmarks.stats.intervals.bootstrap import Bootstrap, Replicates
from benchmarks.study.entries.baselines import BASELINES
from benchmarks.study.metric_info import MetricInfo

#: A statistic of features (eigenvalues, for a Fréchet distance) is computed on so many resamples
#: only; they place an interval's end within about a tenth of its half width.
FEATURE_RESAMPLES = 250

#: Replicates of statistics of features by what they are of: they are kept beside a report, so that
#: it can be rendered again, and quickly, without the features.
Store = MutableMapping[tuple[str, ...], Replicates]

#: Arm, backbone, NFE and sampler.
Key = tuple[str, str, int | None, str | None]


@dataclass(frozen=True)
class ArmScores:
    """One arm or baseline under one sampling setting: its seeds in order, and replicates of every
    metric. `first` is the result of the first seed."""

    first: EvalResult
    seeds: tuple[int | None, ...]
    replicates: dict[str, Replicates]

    @property
    def baseline(self) -> bool:
        return self.first.method in BASELINES

    @property
    def setting(self) -> tuple[str, int | None, str | None]:
        return self.first.backbone, self.first.nfe, self.first.sampler


def key_of(result: EvalResult) -> Key:
    return result.arm, result.backbone, result.nfe, result.sampler


def group_scores(
    measured: Iterable[EvalResult],
    metrics: Sequence[MetricInfo],
    bootstrap: Bootstrap,
    store: Store | None = None,
    part: str = "",
) -> list[ArmScores]:
    """Results that differ in nothing but the training seed, together; in the order of appearance.

    `store` remembers replicates of features; `part` names the videos that `measured` is about.
    """
    groups: dict[Key, dict[int | None, EvalResult]] = {}
    for result in measured:
        of_seed = groups.setdefault(key_of(result), {})
        if result.seed in of_seed:
            raise ValueError(f"{key_of(result)} was measured twice for seed {result.seed}")
        of_seed[result.seed] = result
    kept: Store = {} if store is None else store
    return [
        _scores([of_seed[s] for s in sorted(of_seed, key=lambda s: s or 0)], metrics, bootstrap,
                kept, part)
        for of_seed in groups.values()
    ]  # fmt: skip


def _scores(
    group: list[EvalResult],
    metrics: Sequence[MetricInfo],
    bootstrap: Bootstrap,
    store: Store,
    part: str,
) -> ArmScores:
    first = group[0]
    scores = ArmScores(first, tuple(result.seed for result in group), {})
    for metric in metrics:
        name = metric.name
        key = (part, first.arm, first.backbone, str(first.nfe), str(first.sampler), name)
        measured = [result.rows[name] for result in group if name in result.rows]
        if measured:
            # a seed without the metric makes the mean undefined, and is reported: the others must
            # not stand for it
            nothing = np.full_like(measured[0], np.nan)
            rows = np.stack([result.rows.get(name, nothing) for result in group])
            if rows.shape[1] != bootstrap.rows:
                raise ValueError(
                    f"{first.arm}, {name}: {rows.shape[1]} rows for {bootstrap.rows} prompts"
                )
            if rows.ndim == 2:
                scores.replicates[name] = _replicates(rows, metric, bootstrap)
            else:
                if key not in store:
                    store[key] = _replicates(rows, metric, bootstrap).rounded()
                scores.replicates[name] = store[key]
        elif key in store and len(store[key].values) == len(group):
            scores.replicates[name] = store[key]
    return scores


def _replicates(rows: np.ndarray, metric: MetricInfo, bootstrap: Bootstrap) -> Replicates:
    finite = np.isfinite(rows).reshape(*rows.shape[:2], -1).all(axis=2)
    broken = int((~finite).sum())
    if broken and rows.ndim == 3:  # no statistic of features need bear a NaN
        nothing = np.full((len(rows), min(FEATURE_RESAMPLES, bootstrap.resamples)), np.nan)
        return Replicates(nothing[:, 0], nothing, broken)
    if metric.mean and rows.ndim == 2:  # one matrix product resamples a mean
        return replace(bootstrap.means(rows), not_finite=broken)

    def reduce_many(resamples: np.ndarray) -> np.ndarray:
        assert metric.reduce_many is not None
        return metric.reduce_many(torch.from_numpy(resamples)).numpy()

    replicates = bootstrap.statistic(
        rows,
        lambda resample: float(metric.reduce(torch.from_numpy(np.ascontiguousarray(resample)))),
        FEATURE_RESAMPLES,
        reduce_many if metric.reduce_many else None,
    )
    return replace(replicates, not_finite=broken)
