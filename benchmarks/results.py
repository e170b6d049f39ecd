"""From the scores of a study's arms to results.json: means, intervals, comparisons, costs.

The schema (version 1): `rows` holds one entry per arm, NFE, sampler and metric; `comparisons` one
per pair of arms under the same conditions; `primary` the outcomes that the study's file states,
with their verdicts; `arms` what each training cost, and its errors; `curves` the training
histories. Numbers that do not exist are null.

`claims` is there where the study's file has some: what a paper claims, each with its `source`, its
`outcomes`, which are places in `primary`, and its `verdict`: `shown` if all of those are,
`opposite` if any of them is, `not measured` if none was, else `not shown`.

`drift` is null without long videos. Else its `curves` hold one entry per arm, NFE and metric: its
`points` are the metric over the clips, `frames` long as in training, that end at frame `stop`. Its
`values` are like `rows`, one per `length` (in multiples of the training's) over the last clip of
that length, or of the `slope`, the change per training length of a video's score; its `comparisons`
are those of these values. They count like the others in `comparisons_count` and its fellows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claims import judge as judge_claims
from benchmarks.comparisons import (
    FEATURE_RESAMPLES,
    cells_of,
    compare,
    mark_winners,
    pairs,
    row,
    verdict,
)
from benchmarks.drift import Drift
from benchmarks.records import REFERENCES, ArmCost, Measured, MetricInfo
from benchmarks.statistics import Bootstrap
from salt_zoo import storage
from salt_zoo.errors import ZooError

__all__ = ["REFERENCES", "ArmCost", "Measured", "MetricInfo", "build_results", "write_results"]

SCHEMA = 1

#: Points of a training curve that are kept, beside those with quality metrics.
CURVE_POINTS = 100


def build_results(
    study: Mapping[str, Any],
    measured: Sequence[Measured],
    costs: Sequence[ArmCost],
    metrics: Sequence[MetricInfo],
    prompts: Sequence[str],
    provenance: Mapping[str, Any],
    resamples: int = 1000,
    long_metrics: Sequence[MetricInfo] = (),
    long_prompts: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of results.json.

    `prompts` are those of the rows, in their order; a prompt may have several rows. `study` is the
    resolved study. Its `primary`, the outcomes that its file states, is a list of `metric`,
    `nfe`, `a`, `b` and optionally `sampler`, each the claim that `a` is better than `b`; `length`
    or `slope` make it one about the long videos, whose metrics and prompts are `long_*`.
    """
    if len(set(prompts)) < 2:
        raise ZooError("one evaluation prompt: intervals need at least 2; raise evaluation.prompts")
    bootstrap = Bootstrap(prompts, resamples)
    cells = cells_of(measured, metrics, bootstrap)
    comparisons = [
        entry
        for a, b in pairs(cells)
        for metric in metrics
        if (entry := compare(a, b, metric, bootstrap))
    ]
    rows = [
        row(cell, metric, bootstrap)
        for metric in metrics
        for cell in cells
        if metric.name in cell.replicates
    ]
    mark_winners(rows, comparisons)
    by_name = {metric.name: metric for metric in metrics}
    drift = None
    if any(one.long for one in measured):
        drift = Drift(measured, long_metrics, long_prompts, resamples)
    over_time = drift.section() if drift else None
    counted = comparisons + (over_time["comparisons"] if over_time else [])

    def judge(outcome: Mapping[str, Any]) -> dict[str, Any]:
        if outcome.get("slope") or outcome.get("length"):
            return drift.verdict(outcome) if drift else {**outcome, "verdict": "not measured"}
        return verdict(outcome, cells, by_name, bootstrap)

    results = {
        "schema": SCHEMA,
        "study": dict(study),
        "metrics": [
            {"name": metric.name, "better": metric.better, "summary": metric.summary}
            for metric in metrics
        ],
        "prompts": list(prompts),
        "rows": rows,
        "comparisons": comparisons,
        "drift": over_time,
        "comparisons_count": len(counted),
        "comparisons_clear": sum(entry["clear"] for entry in counted),
        # of comparisons without any true difference, a 95% interval excludes zero in one of twenty
        "comparisons_by_chance": 0.05 * len(counted),
        "primary": [judge(outcome) for outcome in study.get("primary") or ()],
        "arms": _arms(measured, costs),
        "curves": [
            {"arm": cost.arm, "seed": cost.seed, "points": _thin(cost.curve)}
            for cost in costs
            if cost.curve
        ],
        "provenance": dict(provenance),
        "bootstrap": {"resamples": resamples, "feature_resamples": FEATURE_RESAMPLES},
    }
    if study.get("claims"):
        results["claims"] = judge_claims(study["claims"], results["primary"])
    return _json(storage.plain(results))


def write_results(results: Mapping[str, Any], measured: Sequence[Measured], folder: Path) -> None:
    """Write results.json, every single score to samples.parquet, and those of the clips of long
    videos to drift.parquet."""
    parts = [_scores(item, item.rows, results["prompts"], {}) for item in measured]
    _write_parquet(parts, Path(folder) / "samples.parquet")
    if results["drift"]:
        clips = [
            _scores(
                item,
                {name: rows[clip] for name, rows in item.long.rows.items()},
                results["drift"]["prompts"],
                {"stop": stop},
            )
            for item in measured
            if item.long
            for clip, stop in enumerate(item.long.stops)
        ]
        _write_parquet(clips, Path(folder) / "drift.parquet")
    storage.write_json(Path(folder) / "results.json", results)


def _scores(
    item: Measured, rows: Mapping[str, Any], prompts: Sequence[str], more: Mapping[str, Any]
) -> list[Any]:
    """A table for each metric of scores; features are no scores."""
    import pandas

    tables = []
    for metric, scores in rows.items():
        if np.ndim(scores) != 1:
            continue
        columns = {key: getattr(item, key) for key in ("arm", "method", "backbone", "seed")}
        columns |= {"nfe": item.nfe, "sampler": item.sampler, **more}
        columns |= {"prompt_index": np.arange(len(prompts)), "prompt": prompts}
        columns |= {"metric": metric, "score": np.asarray(scores, np.float32)}
        tables.append(pandas.DataFrame(columns).astype({"seed": "Int64", "nfe": "Int64"}))
    return tables


def _write_parquet(parts: Sequence[Sequence[Any]], path: Path) -> None:
    import pandas

    tables = [table for some in parts for table in some]
    if tables:
        table = pandas.concat(tables, ignore_index=True)
    else:
        table = pandas.DataFrame({"arm": [], "metric": [], "score": []})
    with storage.atomic_file(path) as draft:
        table.to_parquet(draft, index=False, compression="zstd")


def _arms(measured: Iterable[Measured], costs: Iterable[ArmCost]) -> list[dict[str, Any]]:
    """The cost of one training of each arm: the mean over the seeds that went well."""
    about = {item.arm: item for item in reversed(list(measured))}
    runs: dict[str, list[ArmCost]] = {}
    for cost in costs:
        runs.setdefault(cost.arm, []).append(cost)
    arms = []
    for arm, of_arm in runs.items():
        whole = [cost for cost in of_arm if cost.error is None]
        known = about.get(arm)
        roles = dict.fromkeys(role for cost in whole for role in cost.passes)
        arms.append(
            {
                "arm": arm,
                "method": known.method if known else None,
                "backbone": known.backbone if known else None,
                "memory": known.memory if known else None,
                "seeds": [cost.seed for cost in whole],
                "updates": _mean(cost.updates for cost in whole),
                "passes": {
                    role: {
                        way: _mean(cost.passes.get(role, {}).get(way, 0.0) for cost in whole)
                        for way in ("forward", "backward")
                    }
                    for role in roles
                },
                "flops": _mean(cost.flops for cost in whole),
                "seconds": _mean(cost.seconds for cost in whole),
                "errors": [
                    {"seed": cost.seed, "updates": cost.updates, "error": cost.error}
                    for cost in of_arm
                    if cost.error is not None
                ],
            }
        )
    return arms


def _mean(numbers: Iterable[float]) -> float | None:
    known = list(numbers)
    return sum(known) / len(known) if known else None


def _thin(curve: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Evenly spaced points of a history, and all that measured quality."""
    every = max(1, math.ceil(len(curve) / CURVE_POINTS))
    return [
        dict(point)
        for place, point in enumerate(curve)
        if place % every == 0
        or place == len(curve) - 1
        or any(key.startswith("quality/") for key in point)
    ]


def _json(content: Any) -> Any:
    """What JSON can hold: numbers with 7 digits, and null for those that are not finite."""
    if isinstance(content, Mapping):
        return {str(key): _json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_json(value) for value in content]
    if isinstance(content, bool | np.bool_):
        return bool(content)
    if isinstance(content, int | np.integer):
        return int(content)
    if isinstance(content, float | np.floating):
        return float(f"{content:.7g}") if math.isfinite(content) else None
    return content if isinstance(content, str) or content is None else str(content)
