"""Half-written files and folders: named by the process that writes them, removed once it is gone.

A killed process cannot clean up. Whoever writes beside its drafts does, and every run does so below
its folder, when it begins and when it ends.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from salt_zoo.io.files.owners import TOKEN, Owner

#: The file in a folder that names its one writer; see `salt_zoo.io.files.one_writer`.
LOCK = ".lock"

#: `.NAME.OWNER-KEY.part`, of a file `.OWNER-KEY.part.ENDING`, and `.NAME.OWNER-KEY.old` of what a
#: new folder takes the place of.
_OWNED = re.compile(rf"\.(?:(?P<name>.+)\.)?{TOKEN}-[0-9a-f]{{8}}\.(?P<kind>part|old)(?:\.\w+)?")
#: As versions before this one named them.
_OLDER = re.compile(r"\.(?:(?P<name>.+)\.)?[0-9a-f]{8}\.(?P<kind>part|old)(?:\.\w+)?")

#: Folders in which this process (by its id, which a fork changes) has looked for drafts.
_looked: set[tuple[int, str]] = set()


def draft(place: Path, name: str = "", kind: str = "part", ending: str = "") -> Path:
    """A path in the folder `place` that only this process uses; `ending` is the file's."""
    key = f"{Owner.current().token}-{uuid.uuid4().hex[:8]}"
    return place / f".{name + '.' if name else ''}{key}.{kind}{ending}"


def remove_drafts(place: Path) -> None:
    """Remove what processes of this host that are gone have left half-written in `place`.

    The folder is looked through once a process: it may hold thousands of files.
    """
    key = (os.getpid(), os.path.realpath(place))
    if key not in _looked:
        _looked.add(key)
        _clean(place, alone=False)


def sweep(folder: Path) -> None:
    """Remove all drafts, and locks of processes that are gone, in `folder` and below.

    For its one writer: what no living process of this host owns is nobody's. Folders below that
    have a writer of their own are left alone.
    """
    for place in _below(Path(folder)):
        _clean(place, alone=True)


def _below(folder: Path) -> Iterator[Path]:
    yield folder
    try:
        inner = [
            Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)
        ]
    except OSError:
        return
    for place in inner:
        if _match(place.name):
            continue
        owner = read_owner(place / LOCK)
        if owner is not None and owner.is_gone:
            with suppress(OSError):
                (place / LOCK).unlink()
        elif (place / LOCK).exists():
            continue
        yield from _below(place)


def read_owner(lock: Path) -> Owner | None:
    """Whose a lock is; None where there is none, or where it cannot be read."""
    import json

    try:
        content = json.loads(lock.read_text(encoding="utf-8"))
        return Owner(str(content["host"]), int(content["pid"]), int(content["started"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _clean(place: Path, alone: bool) -> None:
    """Remove the drafts in one folder; with `alone` also those whose owner is not known."""
    try:
        names = [entry.name for entry in os.scandir(place) if entry.name.startswith(".")]
    except OSError:
        return
    for name in names:
        found = _match(name)
        if found is None:
            continue
        kind, kept, owner = found
        gone = alone if owner is None or not owner.is_here else owner.is_gone
        if not gone:
            continue
        path = place / name
        if kind == "old" and kept and not (place / kept).exists():
            # a crash between the two renames of a folder: this is the only whole one
            with suppress(OSError):
                path.rename(place / kept)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _match(name: str) -> tuple[str, str | None, Owner | None] | None:
    """Of a draft: its kind, what it is to become or was, and its owner, if it says so."""
    if found := _OWNED.fullmatch(name):
        owner = Owner(found["host"], int(found["pid"]), int(found["started"]))
        return found["kind"], found["name"], owner
    if found := _OLDER.fullmatch(name):
        return found["kind"], found["name"], None
    return None
