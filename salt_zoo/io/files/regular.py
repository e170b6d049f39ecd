"""Files that a person names are read whole, so they must be files that end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from salt_zoo.core.base.errors import ZooError


def expanded(path: Path | str) -> Path:
    """A path of a person with `~` as the home it stands for; where there is no such user it is as
    it was written (`Path.expanduser` raises an error of its own)."""
    return Path(os.path.expanduser(path))


def check_regular(file: Path, instead: str) -> os.stat_result:
    """The facts of a regular file; of a pipe nobody may write to, or a device without an end, one
    would wait for ever.

    Args:
        instead: what to give in its place, the ending of the error line.

    Raises:
        ZooError: it is something else.
        OSError: it is not there, or cannot be looked at.
    """
    facts = os.stat(file)
    if not stat.S_ISREG(facts.st_mode):
        what = "a folder" if stat.S_ISDIR(facts.st_mode) else "no regular file"
        raise ZooError(f"{file}: cannot be read (it is {what}); {instead}")
    return facts
