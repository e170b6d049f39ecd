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
    tables = [
        table for result in measured for table in _tables(result, result.rows, results.prompts, {})
    ]
    _write(tables, folder / SAMPLES)
    if results.drift:
        clips = [
            table
            for result in measured
            if result.long
            for clip, stop in enumerate(result.long.stops)
            for table in _tables(
                result,
                {name: rows[clip] for name, rows in result.long.rows.items()},
                results.drift.prompts,
                {"stop": stop},
            )
        ]
        _write(clips, folder / DRIFT)


def _tables(
    result: EvalResult,
    rows: Mapping[str, np.ndarray],
    prompts: Sequence[str],
    more: Mapping[str, Any],
) -> list[pandas.DataFrame]:
    """A table for each metric of scores; features are no scores."""
    tables = []
    for metric, scores in rows.items():
        if np.ndim(scores) != 1:
            continue
        columns: dict[str, Any] = {
            "arm": result.arm,
            "method": result.method,
            "backbone": result.backbone,
            "seed": result.seed,
            "nfe": result.nfe,
            "sampler": result.sampler,
            **more,
            "prompt_index": np.arange(len(prompts)),
            "prompt": list(prompts),
            "metric": metric,
            "score": np.asarray(scores, np.float32),
        }
        columns = {key: _texts(value) for key, value in columns.items()}
        tables.append(pandas.DataFrame(columns).astype({"seed": "Int64", "nfe": "Int64"}))
    return tables


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    return [encodable(text) for text in value] if isinstance(value, list) else value


def _write(tables: Sequence[pandas.DataFrame], path: Path) -> None:
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
