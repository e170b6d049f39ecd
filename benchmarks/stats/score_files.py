"""Every score of a study: samples.parquet, and drift.parquet for clips of long videos."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from benchmarks.evaluate.records import EvalResult, LongVideoResult
from benchmarks.stats.model.entries import Measurement
from benchmarks.stats.model.schema import Results
from benchmarks.study.text import encodable
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files import storage

SAMPLES, DRIFT = "samples.parquet", "drift.parquet"

#: What tells measurements apart in both files.
SETTING = ("arm", "backbone", "nfe", "sampler", "seed")

_NO_PIXELS = np.zeros((0, 1, 1, 1, 1), np.uint8)


def write_scores(measured: Sequence[EvalResult], results: Results, folder: Path) -> None:
    """Write samples.parquet, and drift.parquet where there are long videos."""
    prompts = [encodable(prompt) for prompt in results.prompts]
    samples = [_table(result, [(metric, scores, {}) for metric, scores in result.rows.items()],
                      prompts) for result in measured]  # fmt: skip
    _write(samples, folder / SAMPLES)
    if results.drift:
        prompts = [encodable(prompt) for prompt in results.drift.prompts]
        clips = [
            _table(
                result,
                [
                    (metric, scores[clip], {"stop": stop})
                    for clip, stop in enumerate(result.long.stops)
                    for metric, scores in result.long.rows.items()
                ],
                prompts,
            )
            for result in measured
            if result.long
        ]
        _write(clips, folder / DRIFT)


def _table(
    result: EvalResult,
    parts: Sequence[tuple[str, np.ndarray, Mapping[str, int]]],
    prompts: Sequence[str],
) -> pandas.DataFrame | None:
    """The scores of a measurement, one part after another: a metric, its scores `[P]`, and columns
    of their own. Features are no scores; None without any score."""
    parts = [part for part in parts if np.ndim(part[1]) == 1]
    if not parts:
        return None
    columns: dict[str, Any] = {
        "arm": encodable(result.arm),
        "method": encodable(result.method),
        "backbone": encodable(result.backbone),
        "seed": result.seed,
        "nfe": result.nfe,
        "sampler": result.sampler,
        **{
            key: np.repeat([more[key] for _, _, more in parts], len(prompts)) for key in parts[0][2]
        },
        "prompt_index": np.tile(np.arange(len(prompts)), len(parts)),
        "prompt": [*prompts] * len(parts),
        "metric": np.repeat([encodable(metric) for metric, _, _ in parts], len(prompts)).tolist(),
        "score": np.concatenate([np.asarray(scores, np.float32) for _, scores, _ in parts]),
    }
    return pandas.DataFrame(columns).astype({"seed": "Int64", "nfe": "Int64"})


def _write(found: Sequence[pandas.DataFrame | None], path: Path) -> None:
    tables = [table for table in found if table is not None]
    if tables:
        table = pandas.concat(tables, ignore_index=True)
    else:
        table = pandas.DataFrame({"arm": [], "metric": [], "score": []})
    with storage.atomic_file(path) as draft:
        table.to_parquet(draft, index=False, compression="zstd")


def read_scores(results: Results, folder: Path) -> list[EvalResult]:
    """Every measurement of a report with its scores, without features and videos.

    Raises:
        ZooError: a file of scores is missing or belongs to another results.json.
    """
    short = _by_setting(_read(folder / SAMPLES))
    long = _by_setting(_read(folder / DRIFT)) if results.drift else {}
    return [
        _result(measurement, short, long, len(results.prompts), folder)
        for measurement in results.measurements
    ]


def _result(
    measurement: Measurement,
    short: Mapping[tuple[Hashable, ...], pandas.DataFrame],
    long: Mapping[tuple[Hashable, ...], pandas.DataFrame],
    count: int,
    folder: Path,
) -> EvalResult:
    key = tuple(getattr(measurement, name) for name in SETTING)
    result = None
    if clips := measurement.long:
        rows = _clips(long[key], len(clips.stops)) if key in long else {}
        result = LongVideoResult(clips.frames, clips.stops, clips.ends, rows, _NO_PIXELS)
    return EvalResult(
        arm=measurement.arm,
        method=measurement.method,
        backbone=measurement.backbone,
        memory=measurement.memory,
        seed=measurement.seed,
        nfe=measurement.nfe,
        sampler=measurement.sampler,
        passes=measurement.passes,
        rows=_rows(short[key], count, folder) if key in short else {},
        pixels=_NO_PIXELS,
        long=result,
        own_rollouts=tuple(measurement.own_rollouts),
        setting=measurement.setting,
    )


def _read(path: Path) -> pandas.DataFrame:
    if not path.is_file():
        raise ZooError(f"{path}: there is no such file; a report cannot be rendered without it")
    return pandas.read_parquet(path)


def _by_setting(table: pandas.DataFrame) -> dict[tuple[Hashable, ...], pandas.DataFrame]:
    if "seed" not in table:  # of features alone there are no scores
        return {}
    groups = table.groupby(list(SETTING), sort=False, dropna=False)
    return {tuple(_plain(part) for part in key): scores for key, scores in groups}


def _plain(part: Any) -> Any:
    """The part as JSON holds it: None for a missing value, plain integers."""
    if part is None or part is pandas.NA or part != part:
        return None
    return int(part) if isinstance(part, int | np.integer | float) else part


def _rows(table: pandas.DataFrame, count: int, folder: Path) -> dict[str, np.ndarray]:
    rows = {}
    for metric, scores in table.groupby("metric", sort=False):
        if len(scores) != count:
            raise ZooError(
                f"{folder / SAMPLES}: {len(scores)} scores of {metric} for {count} videos; "
                "it belongs to another results.json"
            )
        ordered = scores.sort_values("prompt_index")
        rows[str(metric)] = ordered["score"].to_numpy(np.float32)
    return rows


def _clips(table: pandas.DataFrame, count: int) -> dict[str, np.ndarray]:
    """Scores `[clips, P]` by metric."""
    ordered = table.sort_values(["stop", "prompt_index"])
    return {
        str(metric): scores["score"].to_numpy(np.float32).reshape(count, -1)
        for metric, scores in ordered.groupby("metric", sort=False)
    }
