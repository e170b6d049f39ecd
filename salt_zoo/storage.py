"""Files that are whole or not there, and digests that name them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from salt_zoo.errors import TrainingError, ZooError


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well, and vanishes otherwise."""
    folder = Path(folder)
    with _readable_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.part"
        draft.mkdir()
        try:
            yield draft
            old = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.old"
            if folder.exists():
                folder.rename(old)
            draft.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and vanishes otherwise."""
    path = Path(path)
    with _readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # the ending stays, for writers that go by it
        draft = path.parent / f".{uuid.uuid4().hex[:8]}.part{path.suffix}"
        try:
            yield draft
            with open(draft, "rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (28, 122):  # no space left, quota exceeded
            raise TrainingError(
                f"{path}: cannot be written ({reason}); free some space and run the same command "
                "again, it goes on from the last checkpoint"
            ) from error
        raise ZooError(f"{path}: cannot be written ({reason}); choose another folder") from error


def digest(content: Any) -> str:
    """16 hexadecimal digits that name `content` (anything JSON can hold, or pydantic models)."""
    text = json.dumps(plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """16 hexadecimal digits that name a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def plain(content: Any) -> Any:
    """`content` as dictionaries, lists and scalars."""
    if isinstance(content, BaseModel):
        return content.model_dump(mode="json")
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content
