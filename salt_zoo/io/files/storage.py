"""Files that are whole or not there, and digests that name them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from salt_zoo.core.base.errors import TrainingError, ZooError
from salt_zoo.io.files.drafts import draft as draft_in
from salt_zoo.io.files.drafts import remove_drafts

#: No space left, quota exceeded, file too large: errors of a full disk, not of a wrong path.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well, and vanishes otherwise."""
    folder = Path(folder)
    with readable_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_drafts(folder.parent)
        draft = draft_in(folder.parent, folder.name)
        draft.mkdir()
        try:
            mode = _usual_mode(draft)
            yield draft
            for path in draft.rglob("*"):
                if path.is_file():
                    path.chmod(mode)
                flush(path)
            flush(draft)
            _replace_folder(folder, draft)
            flush(folder.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _replace_folder(folder: Path, draft: Path) -> None:
    """Rename `draft` to `folder`; what was there goes only after that has worked."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = draft_in(folder.parent, folder.name, "old")
    folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink()


def check_folder(folder: Path) -> None:
    """Refuse, without writing anything, a folder that could not be made or written to."""
    with readable_errors(folder):
        _check_place(Path(folder))


def check_file(path: Path) -> None:
    """Refuse, without writing anything, a file that could not be written: before the work whose
    result it is to hold.

    Raises:
        ZooError: it is a folder, or its own could not be made or written to.
    """
    path = Path(path)
    with readable_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
        _check_place(path.parent)


def _check_place(folder: Path) -> None:
    place = folder.absolute()
    while not place.exists():
        if place.is_symlink():  # of which no folder can be made
            raise FileNotFoundError(errno.ENOENT, "a link that leads nowhere", str(place))
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


def prepare_folder(folder: Path) -> None:
    """Make a folder and write to it, so that a long run does not fail when it first saves."""
    with readable_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = draft_in(folder)
        try:
            probe.write_text("whether it can be written")
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and vanishes otherwise."""
    path = Path(path)
    with readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_drafts(path.parent)
        # the ending stays, for writers that go by it
        draft = draft_in(path.parent, ending=path.suffix)
        try:
            mode = _usual_mode(path.parent)
            yield draft
            draft.chmod(mode)
            flush(draft)
            draft.replace(path)
            flush(path.parent)
        finally:
            # below a regular file even the question whether it exists is an error
            with suppress(OSError):
                draft.unlink()


def _usual_mode(folder: Path) -> int:
    """What a new file in `folder` may, by the umask and the folder's own rules; libraries that
    write through a temporary file of their own (safetensors) keep all others out."""
    probe = draft_in(folder)
    try:
        with probe.open("xb") as file:
            return os.fstat(file.fileno()).st_mode & 0o777
    finally:
        with suppress(OSError):
            probe.unlink()


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk: a rename may get there
    before the content does."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a network disk that cannot do so for folders
            raise
    finally:
        os.close(file)


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Errors of writing `path` as one line: a TrainingError for a full disk, else a ZooError."""
    try:
        yield
    except ZooError:
        raise  # an inner file has said it already
    except Exception as error:
        cause = _cause(error)
        if cause is None or _elsewhere(cause, path):
            raise
        reason = _reason(cause, Path(path))
        if cause.errno in FULL:
            raise TrainingError(
                f"{path}: cannot be written ({reason}); free some space and run the same command "
                "again, what was finished before is kept"
            ) from error
        raise ZooError(f"{path}: cannot be written ({reason}); choose another path") from error


def _reason(error: OSError, path: Path) -> str:
    """What is wrong; the system's "File exists" does not say that a folder was wanted."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        for place in (path, *path.parents):
            if place.is_file():
                return f"{place} is a file, not a folder"
    return error.strerror or str(error)


def _cause(error: BaseException) -> OSError | None:
    """The operating system's error behind an exception of a library that writes files."""
    if isinstance(error, OSError):
        return error
    text = str(error)
    number = re.search(r"\((?:os error|code:?) (\d+)|code: (\d+)", text)
    if number and type(error).__name__ == "SafetensorError":
        code = int(number[1] or number[2])
        return OSError(code, os.strerror(code))
    if "inline_container" in text or "PytorchStreamWriter failed" in text:
        # torch.save tells no more than that the file is shorter than what was written to it
        inner = error.__context__
        return (
            inner
            if isinstance(inner, OSError)
            else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        )
    return None


def _elsewhere(error: OSError, path: Path) -> bool:
    """Whether the error names a file that has nothing to do with writing `path`."""
    if not isinstance(error.filename, str | os.PathLike):
        return False
    named, target = Path(error.filename).absolute(), path.absolute()
    return not (named.is_relative_to(target.parent) or target.is_relative_to(named))


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
    if content is None or isinstance(content, str | int | float):  # most are
        return content
    if isinstance(content, BaseModel):
        return content.model_dump(mode="json")
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content
