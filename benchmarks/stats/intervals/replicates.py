"""Bootstrap replicates of statistics of features, as a file: a Fréchet distance can then be
compared again without the features, which are a hundred times as large."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from benchmarks.stats.intervals.arm_scores import Store
from benchmarks.stats.intervals.bootstrap import Replicates
from salt_zoo.io.files import storage
from salt_zoo.io.files.regular import check_regular

FILE = "replicates.npz"


def write_store(store: Store, folder: Path) -> None:
    """Write `replicates.npz`: by key `[S, 2 + R]` float32, for each seed the number of scores (of
    all seeds) that are not finite, the statistic on all prompts, and on each resample. No file
    without any."""
    if not store:
        (folder / FILE).unlink(missing_ok=True)
        return
    arrays = {
        json.dumps(key): np.column_stack(
            [np.full(len(kept.values), kept.not_finite), kept.values, kept.resampled]
        ).astype(np.float32)
        for key, kept in store.items()
    }
    with storage.atomic_file(folder / FILE) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_store(folder: Path) -> Store:
    """The replicates that `write_store` wrote; empty where there is no such file."""
    path = folder / FILE
    if not os.path.lexists(path):
        return {}
    check_regular(path, "delete it and run the study again")
    with np.load(path) as arrays:
        return {tuple(json.loads(name)): _unpacked(arrays[name]) for name in arrays.files}


def _unpacked(kept: np.ndarray) -> Replicates:
    numbers = kept.astype(np.float64)
    return Replicates(numbers[:, 1], numbers[:, 2:], int(numbers[0, 0]))
