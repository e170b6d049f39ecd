"""Signals that end a program: exceptions that let it clean up, or a wish to come to an end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from salt_zoo.core.ranks import is_alone

#: A terminal's Ctrl-C, a scheduler's or a shutdown's wish, a terminal that was closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that a signal has ended."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


def interrupt(number: int) -> KeyboardInterrupt:
    """The exception that a signal is."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


@contextlib.contextmanager
def signals_clean_up() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP raise `Stopped`, where they would have ended the process
    at once and left its lock and its drafts behind.

    Not in one of several processes: it may wait for the others in a library that lets no exception
    through, and must end all the same.
    """

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    alone = is_alone() and threading.current_thread() is threading.main_thread()
    wanted = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if alone and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in wanted:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def graceful_shutdown() -> Iterator[Callable[[], KeyboardInterrupt | None]]:
    """Yields a function that returns the interrupt, not raised, if Ctrl-C (or SIGTERM, SIGHUP) has
    come since.

    The second one raises it, unless the function has returned the first: then the end is near, and
    more of them change nothing. Outside of the main thread, where signals cannot be caught, the
    answer is always None.
    """
    came: list[int] = []
    ending = False

    def note(number: int, frame: Any) -> None:
        nonlocal ending
        if came and not ending:
            ending = True
            raise interrupt(number)
        came.append(number)

    def answer() -> KeyboardInterrupt | None:
        nonlocal ending
        ending = ending or bool(came)
        return interrupt(came[0]) if came else None

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    # what is ignored (SIGHUP under nohup) stays so
    asked = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in asked}
    try:
        yield answer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
