"""Digests of files that may be large, taken once for each state of a file.

A process takes each once. What it took of a large file is kept in the user's cache
(`salt-zoo/digests`), so that the next command does not read tens of GB again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.seals import Damaged, read_sealed, write_sealed
from salt_zoo.io.files.storage import file_digest

#: Bytes from which a digest is kept on disk: below, reading takes less than a tenth of a second.
LARGE = 2**26
#: Seconds for which a file must have been left alone: a second change within one tick of the
#: filesystem's clock would not show.
_SETTLED = 2.0

#: What tells a state of a file: device, inode, size, and when content and inode last changed.
_State = tuple[int, int, int, int, int]


def known_digest(path: Path) -> str:
    """`file_digest` of a file, by what its folder says of its state where that is known already.

    Raises:
        OSError: it cannot be read.
    """
    return _digest(path.resolve(), _state(path))


def cache_folder() -> Path:
    """Where the digests of large files are kept, one file each."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "salt-zoo" / "digests"


def _state(path: Path) -> _State:
    found = path.stat()
    # a copy that keeps size and time of content has another inode, or another time of it
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


@functools.cache
def _digest(path: Path, state: _State) -> str:
    if state[2] < LARGE:
        return file_digest(path)
    kept = _cache_file(path)
    if kept is not None:
        with suppress(Damaged):  # then it is taken again
            record = read_sealed(kept)
            if record.get("state") == list(state) and isinstance(record.get("sha256"), str):
                return str(record["sha256"])
    found = file_digest(path)
    settled = time.time() - max(state[3:]) / 1e9 > _SETTLED
    if kept is not None and settled and _state(path) == state:
        with suppress(ZooError, OSError):  # a cache that cannot be written is no reason to stop
            write_sealed(kept, {"path": str(path), "state": list(state), "sha256": found})
    return found


def _cache_file(path: Path) -> Path | None:
    """Of one file's digest; None for a user without a home."""
    try:
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
        return cache_folder() / f"{name}.json"
    except RuntimeError:
        return None
