"""The header of a folder that is written part by part: it comes first, and says what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.ranks import is_main_process


@contextmanager
def header_of_something(header: Path, begun: Callable[[], object]) -> Iterator[None]:
    """Inside the block the parts of a folder are made. Where it ends with a mistake of the user
    before one is there (`begun`), the header goes, too: with the mistake mended the folder would be
    of another configuration. What another process writes meanwhile is not lost: whoever goes on
    writes the same header."""
    try:
        yield
    except ZooError:
        if is_main_process() and not begun():
            header.unlink(missing_ok=True)
        raise
