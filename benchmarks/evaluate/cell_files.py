"""The files of a cell, and whether they are as they were written: each holds a digest of its own.

Files of older versions, which have none, are whole if they can be read.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.io.files.seals import SEAL, read_sealed, write_sealed
from salt_zoo.io.files.storage import atomic_file

FACTS = "cell.json"

#: A file that claims to hold more bytes, and so many times its own, is none of ours.
_MOST, _MOST_PACKED = 2**26, 100
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
    path = folder / FACTS
    if not path.exists() and not path.is_symlink():
        return None
    return read_sealed(path)


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Begin a cell: its files come after this one."""
    write_sealed(folder / FACTS, facts)


def write_arrays(folder: Path, name: str, arrays: Mapping[str, Any]) -> None:
    """Write a file of arrays with their digest."""
    whole = {key: np.asarray(value) for key, value in arrays.items()}
    with atomic_file(folder / name) as draft:
        sealed: dict[str, Any] = {**whole, SEAL: np.array(_digest(whole))}
        np.savez_compressed(draft, **sealed)


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
            f"{path}: damaged ({reason(error)}); delete it and run the study again to regenerate it"
        ) from None


def fault(path: Path) -> str | None:
    """What is wrong with a file of arrays; None if it is whole."""
    try:
        stat = path.stat()
    except OSError as error:
        return error.strerror or str(error)
    if not path.is_file():
        return "it is not a file"
    return _fault(path, stat.st_size, stat.st_mtime_ns)


@cache
def _fault(path: Path, size: int, changed: int) -> str | None:
    """Asked again and again while a study runs; size and time tell whether a file is the same."""
    try:
        _check_size(path)
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        return reason(error)
    seal = arrays.pop(SEAL, None)
    if seal is None:  # lost, or of an older version: it cannot be told that nothing else is
        return "it has no digest"
    if str(seal) != _digest(arrays):
        return "its content has changed since it was written"
    for name, array in arrays.items():
        if name != "stamp" and not np.issubdtype(array.dtype, np.number):
            return f"{name!r} holds no numbers"
    return None


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    content = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        content.update(f"{name} {array.dtype.str} {array.shape}\0".encode())
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def _check_size(path: Path) -> None:
    """Refuse a file that would fill the memory."""
    with zipfile.ZipFile(path) as file:
        for item in file.infolist():
            if item.file_size > max(_MOST, _MOST_PACKED * path.stat().st_size):
                raise ValueError(f"it says that it holds {item.file_size:,} bytes")
