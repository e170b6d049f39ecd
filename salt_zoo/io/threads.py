"""Threads of libraries and plugins that end by an error: a line and not a traceback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from salt_zoo.core.base.errors import reason
from salt_zoo.io.files.storage import FULL
from salt_zoo.io.printing import say


@contextmanager
def threads_told() -> Iterator[None]:
    """Inside the block an error that ends a thread is one line on stderr. A full disk is none: it
    is told by whatever is written next."""
    before = threading.excepthook

    def tell(ended: threading.ExceptHookArgs) -> None:
        error = ended.exc_value
        if error is None or isinstance(error, SystemExit):
            return
        if not (isinstance(error, OSError) and error.errno in FULL):
            name = ended.thread.name if ended.thread else "a thread"
            say(f"warning: {name} has ended: {reason(error)}")

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before
