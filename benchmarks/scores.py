"""Scores from a report's folder, as the study runner handed them over."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from benchmarks.records import Long, Measured
from salt_zoo.errors import ZooError

#: What tells measurements apart, in results.json and in both files of scores.
SETTING = ("arm", "backbone", "nfe", "sampler")


def read_measured(results: Mapping[str, Any], folder: Path) -> list[Measured]:
    """Every measurement of a report with its scores, without features and videos; in the order of
    its rows.

    Raises:
        ZooError: a file of scores is missing or belongs to another results.json.
    """
    about: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in results["rows"]:
        key = tuple(row[part] for part in SETTING)
        # a metric with rollouts of its own knows neither the passes nor the setting of the videos
        if key not in about or (row["passes"] and not about[key]["passes"]):
            about[key] = row
    short = _by_setting(_table(folder / "samples.parquet"))
    drift = results["drift"]
    long = _by_setting(_table(folder / "drift.parquet")) if drift else {}
    seeds = {arm["arm"]: arm["seeds"] for arm in results["arms"]}
    found = []
    for setting, row in about.items():
        for seed in [None] if row["reference"] else seeds[row["arm"]]:
            scores = short.get((*setting, seed))
            clips = long.get((*setting, seed))
            if scores is None and clips is None and row["reference"] is False:
                continue  # of this arm another seed only
            found.append(
                Measured(
                    arm=row["arm"],
                    method=row["method"],
                    backbone=row["backbone"],
                    memory=row["memory"],
                    seed=seed,
                    nfe=row["nfe"],
                    sampler=row["sampler"],
                    passes=dict(row["passes"]),
                    setting=row.get("setting"),
                    rows={} if scores is None else _rows(scores, len(results["prompts"]), folder),
                    pixels=_NO_PIXELS,
                    long=None if clips is None else _long(clips, drift),
                )
            )
    return found


_NO_PIXELS = np.zeros((0, 1, 1, 1, 1), np.uint8)


def _table(path: Path) -> pandas.DataFrame:
    if not path.is_file():
        raise ZooError(f"{path}: there is no such file; a report cannot be rendered without it")
    return pandas.read_parquet(path)


def _by_setting(table: pandas.DataFrame) -> dict[tuple[Hashable, ...], pandas.DataFrame]:
    groups = table.groupby([*SETTING, "seed"], sort=False, dropna=False)
    return {tuple(_plain(part) for part in key): own for key, own in groups}


def _plain(part: Any) -> Any:
    """What JSON would hold: None for a missing value, plain integers."""
    if part is None or part is pandas.NA or part != part:
        return None
    return int(part) if isinstance(part, int | np.integer | float) else part


def _rows(table: pandas.DataFrame, count: int, folder: Path) -> dict[str, np.ndarray]:
    rows = {}
    for metric, own in table.groupby("metric", sort=False):
        if len(own) != count:
            raise ZooError(
                f"{folder / 'samples.parquet'}: {len(own)} scores of {metric} for {count} videos; "
                "it belongs to another results.json"
            )
        ordered = own.sort_values("prompt_index")
        rows[str(metric)] = ordered["score"].to_numpy(np.float32)
    return rows


def _long(table: pandas.DataFrame, drift: Mapping[str, Any]) -> Long:
    stops = sorted(int(stop) for stop in table["stop"].unique())
    curve = next(iter(drift["curves"]))
    frames = int(curve["frames"])
    # each length ends with the first clip that reaches it
    ends = {
        str(length): next(i for i, stop in enumerate(stops) if stop >= frames * length)
        for length in drift["lengths"]
    }
    ordered = table.sort_values(["stop", "prompt_index"])
    rows = {
        str(metric): own["score"].to_numpy(np.float32).reshape(len(stops), -1)
        for metric, own in ordered.groupby("metric", sort=False)
    }
    return Long(frames, stops, ends, rows, _NO_PIXELS)
