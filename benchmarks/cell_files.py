"""The files of a cell, and whether they are as they were written.

`cell.json` holds what is known of the videos and the digests of the cell's other files. Files of
older versions, which have no digests, are whole if they can be read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from salt_zoo.errors import ZooError, reason
from salt_zoo.seals import Damaged, file_sha256, read_sealed, write_sealed
from salt_zoo.storage import atomic_file

FACTS = "cell.json"
#: The key of `cell.json` under which the digests stand, by the files' names.
_FILES = "files"
#: A file that claims to hold so many times its size is none of ours.
_MOST_PACKED = 1000
#: What numpy and zipfile raise for a damaged file.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What `write_facts` was given; None where nothing was written yet.

    Raises:
        Damaged: the file is not as it was written.
    """
    found = _read(folder)
    return None if found is None else {k: v for k, v in found.items() if k != _FILES}


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Begin a cell: its files come after this one."""
    write_sealed(folder / FACTS, {**facts, _FILES: {}})


def write_arrays(folder: Path, name: str, arrays: Mapping[str, Any]) -> None:
    """Write a file of arrays, and its digest into `cell.json`, which is there."""
    path = folder / name
    with atomic_file(path) as draft:
        np.savez_compressed(draft, **arrays)
    facts = _read(folder) or {}
    if _FILES not in facts:  # of an older version: what can be read is trusted, as it was so far
        there = [
            other for other in sorted(folder.glob("*.npz")) if fault(folder, other.name) is None
        ]
        facts[_FILES] = {other.name: file_sha256(other) for other in there}
    facts[_FILES][name] = file_sha256(path)
    write_sealed(folder / FACTS, facts)


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of a file.

    Raises:
        ZooError: it cannot be read.
    """
    try:
        _check_size(path)
        with np.load(path) as arrays:
            found: np.ndarray = arrays[name]
        return found
    except _UNREADABLE as error:
        raise ZooError(
            f"{path}: damaged ({reason(error)}); delete it and run the study again, which measures "
            "it once more"
        ) from None


def fault(folder: Path, name: str) -> str | None:
    """What is wrong with one file of a cell that is there; None if it is whole."""
    path = folder / name
    try:
        facts = _read(folder) or {}
        files = facts.get(_FILES)
        stat = path.stat()
        if not path.is_file():
            return "it is not a file"
        if files is None:
            return _unreadable(path, stat.st_size, stat.st_mtime_ns)
        if name not in files:
            return "its writing was interrupted"
        if _sha256(path, stat.st_size, stat.st_mtime_ns) != files[name]:
            return "its content has changed since it was written"
    except OSError as error:
        return error.strerror or str(error)
    except Damaged as damage:
        return damage.why
    return None


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / FACTS
    if not path.exists() and not path.is_symlink():
        return None
    facts = read_sealed(path)
    if not isinstance(facts.get(_FILES, {}), dict):
        raise Damaged(path, f"its {_FILES!r} are no list of files")
    return facts


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Asked again and again while a study runs; size and time tell whether a file is the same."""
    return file_sha256(path)


@cache
def _unreadable(path: Path, size: int, changed: int) -> str | None:
    """Why a file of an older version cannot be read."""
    try:
        _check_size(path)
        with np.load(path) as arrays:
            for name in arrays.files:
                if name != "stamp" and not np.issubdtype(arrays[name].dtype, np.number):
                    return f"{name!r} holds no numbers"
    except _UNREADABLE as error:
        return reason(error)
    return None


def _check_size(path: Path) -> None:
    """Refuse a file that would fill the memory."""
    with zipfile.ZipFile(path) as file:
        for item in file.infolist():
            if item.file_size > max(2**20, _MOST_PACKED * path.stat().st_size):
                raise ValueError(f"it says that it holds {item.file_size:,} bytes")
