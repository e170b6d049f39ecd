"""From the scores of a study's arms to results.json: means, intervals, comparisons, costs.

The schema (version 2): `metrics` say how each is read (direction, kind, target); `rows` holds one
entry per arm, NFE, sampler and metric; `comparisons` one per pair of arms under the same
conditions, with `p`, the level at which its interval would touch zero; `primary` the outcomes that
the study's file states, with their verdicts after Holm's adjustment (`p_holm`) and whether each was
`stated` before, during or after the runs; `answer` the table of the best arms by the primary metric
(`benchmarks.stats.answer`); `arms` what each training cost, and its errors; `curves` the training
histories. Numbers that do not exist are null; `not_finite` counts the scores of a row that are not
finite.

`claims` is there where the study's file has some: what a paper claims, each with its `source`, its
`outcomes`, which are places in `primary`, and its `verdict`: `shown` if all of those are,
`opposite` if any of them is, `not measured` if none was, else `not shown`.

`drift` is null without long videos. Else its `curves` hold one entry per arm, NFE and metric: its
`points` are the metric over the clips, `frames` long as in training, that end at frame `stop`. Its
`values` are like `rows`, one per `length` (in multiples of the training's) over the last clip of
that length, or of the `slope`, the change per training length of a video's score; its `comparisons`
are those of these values.

`measurements` list what was scored: each arm, training seed and sampling setting, with its passes
and, for long videos, its clips; the scores themselves are in samples.parquet and drift.parquet.
`carried` says that intervals of features are those of an older rendering.

`comparisons_count`, `comparisons_clear` and `comparisons_by_chance` are of metrics of quality,
long videos included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluate.pictures import write_videos
from benchmarks.evaluate.records import EvalResult, TrainingCost
from benchmarks.evaluate.scores import measurement
from benchmarks.stats.answer import answer_table, primary_metric
from benchmarks.stats.bootstrap import Bootstrap
from benchmarks.stats.carried import Carried
from benchmarks.stats.comparisons import (
    FEATURE_RESAMPLES,
    Cell,
    Store,
    cells_of,
    compare,
    judge,
    mark_winners,
    pairs,
    row,
)
from benchmarks.stats.drift import Drift
from benchmarks.stats.replicates import write_store
from benchmarks.stats.verdicts import decide
from benchmarks.stats.verdicts import judge as judge_claims
from benchmarks.study.baselines import REFERENCES
from benchmarks.study.metric_info import MetricInfo
from benchmarks.study.text import encodable
from salt_zoo.core.errors import ZooError
from salt_zoo.io import storage

__all__ = [
    "REFERENCES",
    "EvalResult",
    "MetricInfo",
    "TrainingCost",
    "build_results",
    "write_results",
]

SCHEMA = 2

#: Points of a training curve that are kept, beside those with quality metrics.
CURVE_POINTS = 100

#: Told how far the statistics are: (parts done, parts in all).
Told = Callable[[int, int], None]


def _untold(done: int, total: int) -> None:
    pass


def build_results(
    study: Mapping[str, Any],
    measured: Sequence[EvalResult],
    costs: Sequence[TrainingCost],
    metrics: Sequence[MetricInfo],
    prompts: Sequence[str],
    provenance: Mapping[str, Any],
    resamples: int = 1000,
    long_metrics: Sequence[MetricInfo] = (),
    long_prompts: Sequence[str] = (),
    stated: Sequence[str] = (),
    budgets: Mapping[str, float] | None = None,
    store: Store | None = None,
    told: Told = _untold,
) -> dict[str, Any]:
    """The content of results.json.

    `prompts` are those of the rows, in their order; a prompt may have several rows. `study` is the
    resolved study. Its `primary`, the outcomes that its file states, is a list of `metric`,
    `nfe`, `a`, `b` and optionally `sampler`, each the claim that `a` is better than `b`; `length`
    or `slope` make it one about the long videos, whose metrics and prompts are `long_*`.

    Args:
        stated: when each outcome was stated, see `benchmarks.study.stated`.
        budgets: FLOPs of one training of each arm as planned.
        store: statistics of features that are known already; those that are not are added.
        told: called as the work goes on.
    """
    arms = _arms(measured, costs, budgets or {})
    curves = [
        {"arm": cost.arm, "seed": cost.seed, "points": _thin(cost.curve)}
        for cost in costs
        if cost.curve
    ]
    found = analyse(
        study, measured, arms, metrics, prompts, resamples, long_metrics, long_prompts, stated,
        {} if store is None else store, told,
    )  # fmt: skip
    return plain_json({**found, "curves": curves, "provenance": dict(sorted(provenance.items()))})


def analyse(
    study: Mapping[str, Any],
    measured: Sequence[EvalResult],
    arms: Sequence[Mapping[str, Any]],
    metrics: Sequence[MetricInfo],
    prompts: Sequence[str],
    resamples: int,
    long_metrics: Sequence[MetricInfo],
    long_prompts: Sequence[str],
    stated: Sequence[str],
    store: Store,
    told: Told = _untold,
    carried: Carried | None = None,
) -> dict[str, Any]:
    """All of results.json that follows from scores; `arms` are its entries of costs.

    `carried` knows metrics of an older report for which there are no scores any more.
    """
    if len(set(prompts)) < 2:
        raise ZooError("one evaluation prompt: intervals need at least 2; raise evaluation.prompts")
    bootstrap = Bootstrap(prompts, resamples)
    drift = None
    if any(one.long for one in measured):
        drift = Drift(measured, long_metrics, long_prompts, resamples, store)
    parts = len(measured) + (drift.parts if drift else 0)
    cells = []
    for group in _groups(measured):
        cells += cells_of(group, metrics, bootstrap, store)
        told(sum(len(cell.seeds) for cell in cells), parts)

    def difference(a: Cell, b: Cell, metric: MetricInfo) -> dict[str, Any] | None:
        entry = compare(a, b, metric, bootstrap)
        return carried.comparison(a, b, metric) if entry is None and carried else entry

    def row_of(cell: Cell, metric: MetricInfo) -> dict[str, Any] | None:
        if metric.name in cell.replicates:
            return row(cell, metric, bootstrap)
        return carried.row(cell, metric) if carried else None

    def value(cell: Cell, metric: MetricInfo) -> float | None:
        known = cell.replicates.get(metric.name)
        if known is None:
            return carried.value(cell, metric) if carried else None
        mean = float(known.values.mean())
        return mean if math.isfinite(mean) else None

    comparisons = [
        entry for a, b in pairs(cells) for m in metrics if (entry := difference(a, b, m))
    ]
    rows = [entry for m in metrics for cell in cells if (entry := row_of(cell, m))]
    mark_winners(rows, comparisons, metrics)
    by_name = {metric.name: metric for metric in metrics}
    over_time = drift.section(lambda done: told(len(measured) + done, parts)) if drift else None
    if over_time and carried:
        carried.add_to_drift(over_time, long_metrics)

    def compared(outcome: Mapping[str, Any]) -> dict[str, Any]:
        if outcome.get("slope") or outcome.get("length"):
            found = drift.judge(outcome) if drift else dict(outcome)
        else:
            found = judge(outcome, cells, by_name, bootstrap)
        return carried.outcome(outcome) if carried and "difference" not in found else found

    outcomes = list(study.get("primary") or ())
    times = [*stated, *["not recorded"] * (len(outcomes) - len(stated))]
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "study": dict(study),
        "metrics": [metric.plain() for metric in metrics],
        "prompts": list(prompts),
        "measurements": [measurement(one) for one in measured],
        "rows": rows,
        "comparisons": comparisons,
        "drift": over_time,
        "primary": [
            {**compared(outcome), "stated": time}
            for outcome, time in zip(outcomes, times, strict=True)
        ],
        "arms": list(arms),
        "bootstrap": {"resamples": resamples, "feature_resamples": FEATURE_RESAMPLES},
    }
    primary = primary_metric(study, metrics)
    if carried:
        results["carried"] = True
    results["answer"] = primary and answer_table(
        cells,
        primary,
        arms,
        lambda cell: value(cell, primary),
        lambda a, b: difference(a, b, primary),
    )
    return _settle(results)


def _settle(results: dict[str, Any]) -> dict[str, Any]:
    """Verdicts on outcomes and claims, and how many comparisons there are, from the comparisons."""
    over_time = results["drift"]
    of_long = over_time["metrics"] if over_time else []
    known = [*results["metrics"], *of_long]
    judging = {metric["name"] for metric in known if metric["kind"] == "quality"}
    made: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in [*results["comparisons"], *(over_time["comparisons"] if over_time else ())]:
        # a slope has no direction where its value has a target; at one step all samplers are one
        if entry["metric"] in judging and entry["better"] != "none" and entry["p"] is not None:
            sampler = None if entry["nfe"] == 1 else entry["sampler"]
            names = ("metric", "a", "b", "backbone", "nfe", "length", "slope")
            made.setdefault((sampler, *(entry.get(name) for name in names)), entry)
    counted = list(made.values())
    results["comparisons_count"] = len(counted)
    results["comparisons_clear"] = sum(entry["clear"] for entry in counted)
    # of comparisons without any true difference, a 95% interval excludes zero in one of twenty
    results["comparisons_by_chance"] = 0.05 * len(counted)
    results["primary"] = decide(results["primary"])
    if results["study"].get("claims"):
        results["claims"] = judge_claims(results["study"]["claims"], results["primary"])
    return results


def _groups(measured: Iterable[EvalResult]) -> list[list[EvalResult]]:
    """What belongs to one cell, together, in the order of appearance."""
    groups: dict[tuple[Any, ...], list[EvalResult]] = {}
    for one in measured:
        groups.setdefault((one.arm, one.backbone, one.nfe, one.sampler), []).append(one)
    return list(groups.values())


def write_results(
    results: Mapping[str, Any],
    measured: Sequence[EvalResult],
    folder: Path,
    store: Store | None = None,
) -> None:
    """Write results.json and all that a report can be rendered from again: every single score to
    samples.parquet, those of the clips of long videos to drift.parquet, statistics of features
    (`store`) to replicates.npz, and the shown videos to videos.npz."""
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
    write_store(store or {}, Path(folder))
    write_videos(measured, Path(folder))
    storage.write_json(Path(folder) / "results.json", results)


def _scores(
    item: EvalResult, rows: Mapping[str, Any], prompts: Sequence[str], more: Mapping[str, Any]
) -> list[Any]:
    """A table for each metric of scores; features are no scores."""
    import pandas

    tables = []
    for metric, scores in rows.items():
        if np.ndim(scores) != 1:
            continue
        columns: dict[str, Any] = {
            key: getattr(item, key) for key in ("arm", "method", "backbone", "seed")
        }
        columns |= {"nfe": item.nfe, "sampler": item.sampler, **more}
        columns |= {"prompt_index": np.arange(len(prompts)), "prompt": prompts}
        columns |= {"metric": metric, "score": np.asarray(scores, np.float32)}
        columns = {key: _texts(value) for key, value in columns.items()}
        tables.append(pandas.DataFrame(columns).astype({"seed": "Int64", "nfe": "Int64"}))
    return tables


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    return [encodable(text) for text in value] if isinstance(value, list) else value


def _write_parquet(parts: Sequence[Sequence[Any]], path: Path) -> None:
    import pandas

    tables = [table for some in parts for table in some]
    if tables:
        table = pandas.concat(tables, ignore_index=True)
    else:
        table = pandas.DataFrame({"arm": [], "metric": [], "score": []})
    with storage.atomic_file(path) as draft:
        table.to_parquet(draft, index=False, compression="zstd")


def _arms(
    measured: Iterable[EvalResult], costs: Iterable[TrainingCost], budgets: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The cost of one training of each arm: the mean over the seeds that went well."""
    about = {item.arm: item for item in reversed(list(measured))}
    runs: dict[str, list[TrainingCost]] = {}
    for cost in costs:
        runs.setdefault(cost.arm, []).append(cost)
    arms = []
    for arm, of_arm in runs.items():
        whole = [cost for cost in of_arm if cost.error is None]
        known = about.get(arm)
        roles = sorted({role for cost in whole for role in cost.passes})
        flops, budget = _mean(cost.flops for cost in whole), budgets.get(arm)
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
                "flops": flops,
                "budget": budget,
                "off_budget": flops / budget - 1 if flops and budget else None,
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


def plain_json(content: Any) -> Any:
    """What JSON can hold: numbers with 7 digits, and null for those that are not finite."""
    content = storage.plain(content)
    if isinstance(content, Mapping):
        return {str(key): plain_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain_json(value) for value in content]
    if isinstance(content, bool | np.bool_):
        return bool(content)
    if isinstance(content, int | np.integer):
        return int(content)
    if isinstance(content, float | np.floating):
        return float(f"{content:.7g}") if math.isfinite(content) else None
    return content if isinstance(content, str) or content is None else str(content)
