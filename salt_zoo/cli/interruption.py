"""Ctrl-C as a wish to come to an end, not as an accident."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C (or SIGTERM) has come since.

    The second one raises KeyboardInterrupt, unless the function has said yes: then the end is near,
    and more of them change nothing. Outside of the main thread, where signals cannot be caught, the
    answer is always no.
    """
    came: list[int] = []
    ending = False

    def note(number: int, frame: Any) -> None:
        nonlocal ending
        if came and not ending:
            ending = True
            raise KeyboardInterrupt
        came.append(number)

    def answer() -> bool:
        nonlocal ending
        ending = ending or bool(came)
        return ending

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield answer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
