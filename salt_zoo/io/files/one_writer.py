"""One writer a folder: two runs in one place would mix their checkpoints.

The lock is a file that is made whole or not at all, because locks of the operating system do not
work on every network disk. It names its owner. One whose owner on this host is gone is taken over;
of another host nobody can tell, and the line says what to delete.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.ranks import is_main_process
from salt_zoo.io.files.drafts import LOCK, draft, read_owner, sweep
from salt_zoo.io.files.owners import Owner
from salt_zoo.io.files.storage import check_folder, readable_errors

#: The folders that this process holds (by its id, which a fork changes).
_held: set[tuple[int, str]] = set()


@contextmanager
def one_writer(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold `folder` (made where it is missing) inside the block, and clear it of drafts before and
    after.

    A process that holds it already may enter again. Of a distributed run the first process holds it
    for all. A folder that was made here and is still empty at the end is removed again.

    Args:
        patience: seconds to wait for another writer, for instance one whose parent has ended.

    Raises:
        ZooError: another process writes there, or the folder cannot be written, or holds no
            weights (its name is not UTF-8).
    """
    folder = Path(folder)
    key = (os.getpid(), os.path.realpath(folder))
    if key in _held or not is_main_process():
        yield
        return
    check_folder(folder)
    try:
        str(folder).encode()
    except UnicodeEncodeError:  # safetensors would not read it back
        raise ZooError(f"{folder}: its name is not UTF-8; choose another folder") from None
    with readable_errors(folder):
        made = _make(folder)
        _take(folder, patience)
    _held.add(key)
    try:
        sweep(folder)
        yield
    finally:
        _held.discard(key)
        sweep(folder)
        _release(folder)
        for place in made:
            with suppress(OSError):
                place.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns those that were missing, the deepest first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _take(folder: Path, patience: float) -> None:
    lock, until = folder / LOCK, time.monotonic() + patience
    while not _create(lock):
        seen = _read(lock)
        if seen is None:
            continue  # it has just been released
        owner = read_owner(lock)
        if owner is not None and owner.is_gone:
            _put_aside(lock, seen)
        elif time.monotonic() >= until:
            raise ZooError(_refusal(folder, seen))
        else:
            time.sleep(0.1)


def _create(lock: Path) -> bool:
    """Make the lock, with its content, unless it is there."""
    owner = Owner.current()
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    content = {"host": owner.host, "pid": owner.pid, "started": owner.started, "since": now}
    text = json.dumps(content) + "\n"
    made = draft(lock.parent)
    try:
        made.write_text(text, encoding="utf-8")
    except FileNotFoundError:  # who made the folder has left it empty, and removed it
        lock.parent.mkdir(parents=True, exist_ok=True)
        return False
    except OSError:  # a full disk
        made.unlink(missing_ok=True)
        raise
    try:
        os.link(made, lock)
        return True
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links
        try:
            with open(lock, "x", encoding="utf-8") as file:
                file.write(text)
            return True
        except FileExistsError:
            return False
    finally:
        made.unlink(missing_ok=True)


def _read(lock: Path) -> bytes | None:
    try:
        return lock.read_bytes()
    except FileNotFoundError:
        return None


def _put_aside(lock: Path, seen: bytes) -> None:
    """Remove the lock that was `seen`; one that another process has made meanwhile stays."""
    aside = draft(lock.parent)
    try:
        lock.rename(aside)
    except FileNotFoundError:
        return  # somebody else was quicker
    if aside.read_bytes() != seen:
        with suppress(OSError):
            os.link(aside, lock)
    aside.unlink(missing_ok=True)


def _release(folder: Path) -> None:
    if read_owner(folder / LOCK) == Owner.current():
        with suppress(OSError):
            (folder / LOCK).unlink()


def _refusal(folder: Path, seen: bytes) -> str:
    try:
        content = json.loads(seen)
        owner = Owner(content["host"], content["pid"], content["started"])
        who = f"process {owner.pid} on {owner.host}, since {content['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return (
            f"{folder}: another run seems to write there, and its {LOCK} cannot be read; if none "
            f"does, delete {folder / LOCK}"
        )
    if owner.is_here:
        return f"{folder}: another run writes there ({who}); wait for it, or choose another folder"
    return (
        f"{folder}: another run writes there ({who}); wait for it, choose another folder, or if it "
        f"has ended delete {folder / LOCK}"
    )
