"""Signals that end a program: exceptions that let it clean up, or a wish to come to an end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from salt_zoo.core.interrupts import Stopped
from salt_zoo.core.ranks import is_alone

#: A terminal's Ctrl-C, a scheduler's or a shutdown's wish, a terminal that was closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that a signal has ended."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


@contextlib.contextmanager
def signals_clean_up() -> Iterator[None]:
    """Inside the block SIGINT, SIGTERM and SIGHUP raise `Stopped`: the last two would have ended
    the process at once and left its lock and its drafts behind, and Python's KeyboardInterrupt
    could not be told from one that foreign code raises.

    SIGTERM and SIGHUP do not in one of several processes: it may wait for the others in a library
    that lets no exception through, and must end all the same.
    """

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = ENDING if is_alone() else (signal.SIGINT,)
    before = {number: signal.getsignal(number) for number in wanted}
    for number in wanted:
        if before[number] is _usual(number):
            signal.signal(number, _here_alone(stop))
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is _usual(number):
                signal.signal(number, handler)


def _usual(number: int) -> Any:
    """What Python begins with."""
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


def _here_alone(handler: Callable[[int, Any], None]) -> Callable[[int, Any], None]:
    """`handler` for this process. One that foreign code forks inherits it, and does as it would
    have without: multiprocessing ends its processes by SIGTERM and waits for their end."""
    process = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() == process:
            handler(number, frame)
        else:
            signal.signal(number, _usual(number))
            signal.raise_signal(number)

    return handle


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
            raise Stopped(number)
        came.append(number)

    def answer() -> KeyboardInterrupt | None:
        nonlocal ending
        ending = ending or bool(came)
        return Stopped(came[0]) if came else None

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    # what is ignored (SIGHUP under nohup) stays so
    asked = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _here_alone(note)) for number in asked}
    try:
        yield answer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
