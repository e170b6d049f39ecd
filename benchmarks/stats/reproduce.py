"""An interval of a report by hand, from its samples.parquet: the computation of `bootstrap`, in the
order in which one would explain it.

    reproduce(Path("reports/digits"), "digits-rigidity", "dmd-8", nfe=4)
    reproduce(Path("reports/digits"), "digits-rigidity", "dmd-8", "dmd-4", nfe=4)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas

from benchmarks.stats.intervals.bootstrap import Bootstrap, Interval, Replicates
from benchmarks.stats.report_digests import check_digests
from benchmarks.stats.results_file import read_results
from benchmarks.stats.score_files import SAMPLES
from salt_zoo.core.base.errors import ZooError


def reproduce(
    folder: Path,
    metric: str,
    arm: str,
    other: str | None = None,
    *,
    nfe: int | None = None,
    sampler: str | None = "sde",
    backbone: str | None = None,
) -> Interval:
    """The interval of an arm's mean, or with `other` of the paired difference of the two.

    Args:
        folder: of a report, with samples.parquet and results.json.
        metric: one that is a mean of scores; distances of features are in replicates.npz.
        nfe, sampler: the setting; None for both is that of real videos.
        backbone: needed where several have baselines of one name.

    Raises:
        ZooError: there are no such scores, the metric is no mean of them, or a file was changed.
    """
    results = read_results(folder)
    check_digests(folder)
    entry = next((entry for entry in results.metrics if entry.name == metric), None)
    if entry is None or not entry.mean:
        means = ", ".join(entry.name for entry in results.metrics if entry.mean)
        raise ZooError(f"{folder}: {metric!r} is no mean of scores here; those are: {means}")
    table = pandas.read_parquet(folder / SAMPLES)
    table = table[(table.metric == metric) & _is(table.nfe, nfe) & _is(table.sampler, sampler)]
    if backbone is not None:
        table = table[table.backbone == backbone]
    # 1. which prompts each of the 1,000 resamples holds; the same for every arm
    bootstrap = Bootstrap(results.prompts, results.bootstrap.resamples)
    # 2. each arm's mean on all prompts and on each resample, seed by seed
    first = _replicates(table, arm, bootstrap)
    bounds = (entry.bounds[0], entry.bounds[1]) if entry.bounds else None
    if other is None:
        return bootstrap.interval(first, bounds)
    second = _replicates(table, other, bootstrap)
    if entry.target is not None:
        # 3. for a metric with a target, the distances to it are compared
        first, second = first.distance_to(entry.target), second.distance_to(entry.target)
        bounds = None
    # 4. the difference, paired by prompt and by seed (a baseline, one network, with every seed),
    #    and its interval: Bootstrap.difference says how it is widened
    seeds = [table[table.arm == name].seed.drop_duplicates().tolist() for name in (arm, other)]
    paired = seeds[0] == seeds[1] or any(pandas.isna(of_arm[0]) for of_arm in seeds)
    return bootstrap.difference(first, second, paired, bounds)


def _is(column: pandas.Series, value: object) -> pandas.Series:
    return column.isna() if value is None else column == value


def _replicates(table: pandas.DataFrame, arm: str, bootstrap: Bootstrap) -> Replicates:
    rows = table[table.arm == arm]
    if not len(rows):
        raise ZooError(f"no scores of {arm!r} under this setting; there are {set(table.arm)}")
    if rows.backbone.nunique() > 1:
        raise ZooError(f"{arm!r} was measured on several backbones: {set(rows.backbone)}; name one")
    seeds = [of_seed for _, of_seed in rows.groupby("seed", dropna=False)]
    scores = np.stack([of_seed.sort_values("prompt_index").score.to_numpy() for of_seed in seeds])
    return bootstrap.means(scores)
