"""Digests beside what they are of, so that a file that has changed since is not taken for whole."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from salt_zoo.io.files.storage import digest, plain, write_json

#: The key of a JSON file under which the digest of all its other keys stands.
SEAL = "digest"


class Damaged(Exception):
    """A file is not what was written: cut, changed, exchanged or lost.

    Attributes:
        path: the file.
        why: in a few words.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with the digest of its content."""
    write_json(path, sealed(content))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` as JSON will hold it, and its digest."""
    whole = json.loads(json.dumps(plain(content)))
    return {**whole, SEAL: digest(_steady(whole))}


def _steady(content: Any) -> Any:
    """`content` without wall times: two records of one training have one digest."""
    if isinstance(content, dict):
        return {name: _steady(value) for name, value in content.items() if name != "seconds"}
    return [_steady(value) for value in content] if isinstance(content, list) else content


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        Damaged: it cannot be read, or is none.
    """
    try:
        _check_regular(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(path, _words(error)) from None


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` was given; one without a digest is of an older version, and is trusted.

    Raises:
        Damaged: it is not such a file, or has changed since.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise Damaged(path, "it holds no JSON object")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != digest(_steady(content)):
        raise Damaged(path, "its content has changed since it was written")
    return content


def file_digests(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """SHA-256 of files in `folder`, by their path in it: of all, or of those that are named.

    Raises:
        OSError: one cannot be read.
    """
    if names is None:
        names = sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
    names = list(names)
    with ThreadPoolExecutor(4) as pool:  # hashing and reading leave the interpreter free
        found = list(pool.map(lambda name: file_sha256(folder / name), names))
    return dict(zip(names, found, strict=True))


def file_sha256(path: Path) -> str:
    """64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, files: Any) -> None:
    """Compare files with the digests that `file_digests` gave of them.

    Raises:
        Damaged: one is missing, cannot be read, or has changed.
    """
    if not isinstance(files, Mapping):
        raise Damaged(folder, "it has no list of files")
    for name, wanted in files.items():
        try:
            _check_regular(folder / name)
            found = file_sha256(folder / name)
        except OSError as error:
            raise Damaged(folder / name, _words(error)) from None
        if found != wanted:
            raise Damaged(folder / name, "its content has changed since it was written")


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):  # one would wait for a pipe
        raise Damaged(path, "it is a folder" if path.is_dir() else "it is no regular file")


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
