"""Scores from a report's folder, as the study runner handed them over."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from benchmarks.evaluate.records import EvalResult, Long
from salt_zoo.core.errors import ZooError

#: What tells measurements apart, in results.json and in both files of scores.
SETTING = ("arm", "backbone", "nfe", "sampler")


def measurement(one: EvalResult) -> dict[str, Any]:
    """All of a measurement but its scores and videos, for results.json."""
    facts = {
        field.name: getattr(one, field.name)
        for field in dataclasses.fields(one)
        if field.name not in ("rows", "pixels", "long")
    }
    long = one.long
    facts["long"] = long and {"frames": long.frames, "stops": long.stops, "ends": long.ends}
    return facts


def read_measured(results: Mapping[str, Any], folder: Path) -> list[EvalResult]:
    """Every measurement of a report with its scores, without features and videos.

    Raises:
        ZooError: a file of scores is missing or belongs to another results.json.
    """
    drift = results["drift"]
    short = _by_setting(_table(folder / "samples.parquet"))
    clips = _by_setting(_table(folder / "drift.parquet")) if drift else {}
    count = len(results["prompts"])
    found = []
    for facts in results.get("measurements") or _of_rows(results):
        key = (*(facts[part] for part in SETTING), facts["seed"])
        rows = _rows(short[key], count, folder) if key in short else {}
        long = facts["long"]
        if long:
            scores = _clips(clips[key], len(long["stops"])) if key in clips else {}
            long = Long(**long, rows=scores, pixels=_NO_PIXELS)
        own = tuple(facts["own"])
        given = {**facts, "long": long, "own": own}
        found.append(EvalResult(**given, rows=rows, pixels=_NO_PIXELS))
    return found


def _of_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The measurements of schema 1, which did not list them, from its rows."""
    drift = results["drift"]
    curves = {tuple(c[part] for part in SETTING): c for c in drift["curves"]} if drift else {}
    seeds = {arm["arm"]: arm["seeds"] for arm in results["arms"]}
    about: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in results["rows"]:
        key = tuple(row[part] for part in SETTING)
        # a metric with rollouts of its own does not know the passes of the videos
        if key not in about or (row["passes"] and not about[key]["passes"]):
            about[key] = row
    found = []
    for key, row in about.items():
        facts = {part: row[part] for part in (*SETTING, "method", "memory", "passes")}
        facts |= {"own": (), "setting": None, "long": _long(curves.get(key), drift)}
        for seed in [None] if row["reference"] else seeds[row["arm"]]:
            found.append({**facts, "seed": seed})
    return found


def _long(curve: Mapping[str, Any] | None, drift: Mapping[str, Any]) -> dict[str, Any] | None:
    """The clips of long videos, from a curve over them."""
    if curve is None:
        return None
    stops, frames = [point["stop"] for point in curve["points"]], curve["frames"]
    # each length ends with the first clip that reaches it
    ends = {
        str(length): next(i for i, stop in enumerate(stops) if stop >= frames * length)
        for length in drift["lengths"]
    }
    return {"frames": frames, "stops": stops, "ends": ends}


_NO_PIXELS = np.zeros((0, 1, 1, 1, 1), np.uint8)


def _table(path: Path) -> pandas.DataFrame:
    if not path.is_file():
        raise ZooError(f"{path}: there is no such file; a report cannot be rendered without it")
    return pandas.read_parquet(path)


def _by_setting(table: pandas.DataFrame) -> dict[tuple[Hashable, ...], pandas.DataFrame]:
    if "seed" not in table:  # of features alone there are no scores
        return {}
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


def _clips(table: pandas.DataFrame, count: int) -> dict[str, np.ndarray]:
    """Scores `[clips, P]` by metric."""
    ordered = table.sort_values(["stop", "prompt_index"])
    return {
        str(metric): own["score"].to_numpy(np.float32).reshape(count, -1)
        for metric, own in ordered.groupby("metric", sort=False)
    }
