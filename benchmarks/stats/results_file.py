"""results.json as a file: written with seven digits, read and checked; and the files beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluate.pictures import write_videos
from benchmarks.evaluate.records import EvalResult
from benchmarks.stats.intervals.arm_scores import Store
from benchmarks.stats.intervals.replicates import write_store
from benchmarks.stats.model.schema import SCHEMA, Results
from benchmarks.stats.report_digests import digests_renewed
from benchmarks.stats.score_files import write_scores
from salt_zoo.core.base.config import validate
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files import storage
from salt_zoo.io.files.seals import Damaged, read_json

FILE = "results.json"


def stored(results: Results) -> Results:
    """The results as the file holds them."""
    return Results.model_validate(plain_json(results.to_json()))


def plain_json(content: Any) -> Any:
    """Content that JSON can hold: numbers with 7 digits, and null for those that are not finite."""
    return _short(storage.plain(content))


def _short(content: Any) -> Any:
    """`plain_json` of what is dictionaries, lists and scalars."""
    if isinstance(content, str) or content is None:
        return content
    if isinstance(content, bool | np.bool_):
        return bool(content)
    if isinstance(content, int | np.integer):
        return int(content)
    if isinstance(content, float | np.floating):
        return float(f"{content:.7g}") if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {_key(key): _short(value) for key, value in content.items()}
    return [_short(value) for value in content] if isinstance(content, list) else str(content)


def _key(key: Any) -> str:
    """A key that any reader can hold: names of files may have bytes that are no letters."""
    return str(key).encode("utf-8", "backslashreplace").decode("utf-8")


def write_results(
    results: Results,
    measured: Sequence[EvalResult],
    folder: Path,
    store: Store | None = None,
) -> None:
    """Write results.json and all that a report can be rendered from again: every score of every
    video to samples.parquet, those of the clips of long videos to drift.parquet, statistics of
    features (`store`) to replicates.npz, and the shown videos to videos.npz; and their digests."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with digests_renewed(folder):
        write_scores(measured, results, folder)
        write_store(store or {}, folder)
        write_videos(measured, folder)
        storage.write_json(folder / FILE, results.to_json())


def write_json(results: Results, folder: Path) -> None:
    """Write results.json alone, and the digests anew."""
    with digests_renewed(folder):
        storage.write_json(folder / FILE, results.to_json())


def read_results(folder: Path) -> Results:
    """The content of a folder's results.json.

    Raises:
        ZooError: there is none, or it is damaged or of another schema.
    """
    path = folder / FILE
    again = f"run the study again with --out {folder}: what was trained and measured there is kept"
    if not os.path.lexists(path):
        raise ZooError(f"{path}: there is no such file; name the folder of a report")
    try:
        content = read_json(path)
    except Damaged as damage:
        raise ZooError(f"{path}: damaged ({damage.why}); {again}") from None
    if not isinstance(content, dict) or "schema" not in content:
        raise ZooError(f"{path}: not the results of a study")
    if content["schema"] != SCHEMA:
        raise ZooError(
            f"{path}: schema: {content['schema']!r} is of another version (this one reads "
            f"{SCHEMA}); {again}"
        )
    try:
        return validate(Results, content, str(path))
    except ZooError as error:
        raise ZooError(f"{error}; {again}") from None
