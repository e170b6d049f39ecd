"""The files that a part's options name, by what is in them: a name alone does not tell whether it
is still the same file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from salt_zoo.io.known_digests import known_digest


def option_files(options: BaseModel) -> dict[str, str]:
    """Digests of the files that options name, by the option's dotted name.

    A path names a file, or a folder with all that is in it. A text names a file where there is one
    of that name: options of parts of parts are plain texts, and some take a tag or a file. What is
    not there has no digest.
    """
    found: dict[str, str] = {}
    for key, value in _leaves(options, ""):
        path = os.fspath(value)
        if os.path.isfile(path):
            found[key] = known_digest(Path(path))
        elif isinstance(value, PurePath) and os.path.isdir(path):
            for file in sorted(Path(path).rglob("*")):
                if file.is_file():
                    found[f"{key}/{file.relative_to(path).as_posix()}"] = known_digest(file)
    return found


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str | PurePath]]:
    """Paths and texts in options, wherever in them."""
    if isinstance(value, str | PurePath):
        yield key, value
        return
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, BaseModel):
        inner = list(value)
    elif isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list | tuple):
        inner = list(enumerate(value))
    for name, content in inner:
        yield from _leaves(content, f"{key}.{name}" if key else str(name))
