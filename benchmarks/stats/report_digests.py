"""Digests of the files that a report is rendered from, beside them: a file that was cut, edited or
exchanged since is an error and not a page of wrong numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.regular import check_regular
from salt_zoo.io.files.seals import Damaged, check_files, file_digests, read_sealed, write_sealed
from salt_zoo.io.files.storage import flush, readable_errors
from salt_zoo.io.printing import say

FILE = "digests.json"

#: Those that are there are covered. (`stated.json` is written when a study begins and ends.)
COVERED = ("results.json", "samples.parquet", "drift.parquet", "replicates.npz", "videos.npz")


@contextmanager
def digests_renewed(folder: Path) -> Iterator[None]:
    """Inside the block files of a report may change; their digests are written at its end. What is
    interrupted has none, which is not wrong."""
    path = folder / FILE
    with readable_errors(path):
        if os.path.lexists(path):
            path.unlink()
            flush(folder)  # a file must not get to the disk before the old digests have left it
    yield
    write_sealed(path, {"files": file_digests(folder, _there(folder))})


def check_digests(folder: Path) -> None:
    """Refuse a report of which a file has changed since it was written. Older ones have no digests,
    which is a note.

    Raises:
        ZooError: a file has changed, is missing, or was added.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        say(
            f"note: {folder}: no {FILE}, as an older version leaves it: whether a file was changed "
            "by hand cannot be told"
        )
        return
    try:
        for name in _there(folder):
            check_regular(folder / name, "delete it and run the study again")
        files: Any = read_sealed(path).get("files")
        check_files(folder, files)
        for name in _there(folder):
            if name not in files:
                raise Damaged(folder / name, "it was not there when the report was written")
    except Damaged as damage:
        raise ZooError(
            f"{damage.path}: damaged ({damage.why}); run the study again with --out {folder}: what "
            "was trained and measured there is kept; or, if it was changed on purpose, delete "
            f"{path}"
        ) from None


def _there(folder: Path) -> list[str]:
    return [name for name in COVERED if os.path.lexists(folder / name)]
