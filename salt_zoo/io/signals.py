"""Signals that end a program: exceptions that let it clean up, or a wish to come to an end."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from salt_zoo.core.base.interrupts import Stopped
from salt_zoo.core.base.ranks import is_alone

#: A terminal's Ctrl-C, a scheduler's or a shutdown's wish, a terminal that was closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds that one of several processes has to say why it ends.
PATIENCE = 15.0


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
        with _not_lost():
            yield
    finally:
        for number, handler in before.items():
            if handler is _usual(number):
                signal.signal(number, handler)


#: Seconds until a signal comes again that a callback has swallowed.
_AGAIN = 0.05


@contextlib.contextmanager
def _not_lost() -> Iterator[None]:
    """Inside the block a `Stopped` that was raised where Python ignores every error (a destructor,
    a callback of an import's lock) comes again, outside of it."""
    process, before = os.getpid(), sys.unraisablehook
    timers: list[threading.Timer] = []

    def again(told: Any) -> None:
        if not isinstance(told.exc_value, Stopped) or os.getpid() != process:
            before(told)
            return
        main = threading.main_thread().ident or 0
        timer = threading.Timer(_AGAIN, signal.pthread_kill, (main, told.exc_value.number))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        if sys.unraisablehook is again:
            sys.unraisablehook = before


@contextlib.contextmanager
def termination_told(tell: Callable[[], None]) -> Iterator[None]:
    """Inside the block SIGTERM ends one of several processes, wherever it waits, once `tell` has
    returned; a process that is alone is left to `signals_clean_up`.

    So torchrun ends the others where one has died. While a collective waits Python calls no
    handler, but the signal is written to a socket all the same, which a thread reads.
    """
    usual = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_alone() or threading.current_thread() is not threading.main_thread() or not usual:
        yield
        return
    written, read = socket.socketpair()
    written.setblocking(False)

    def ask(*_: Any) -> None:  # again, where other code has taken the signals' socket for its own
        with contextlib.suppress(OSError):
            written.send(bytes((signal.SIGTERM,)))

    def wait() -> None:
        with read:
            while numbers := read.recv(64):
                if signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) is ask:
                    late = threading.Timer(PATIENCE, os._exit, (128 + signal.SIGTERM,))
                    late.daemon = True
                    late.start()  # nobody may read what is told
                    try:
                        tell()
                    finally:
                        os._exit(128 + signal.SIGTERM)

    _look_at_forks()
    _asking.append(ask)
    threading.Thread(target=wait, name="termination", daemon=True).start()
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(before)
        _asking.remove(ask)
        written.close()  # so that the thread ends


#: The handlers of `termination_told`.
_asking: list[Callable[..., None]] = []


@functools.cache
def _look_at_forks() -> None:
    """Once a process: of hooks that were added again the first would unblock what waits for the
    others."""
    os.register_at_fork(
        before=lambda: _mask(signal.SIG_BLOCK),
        after_in_parent=lambda: _mask(signal.SIG_UNBLOCK),
        after_in_child=_forked,
    )


def _mask(how: int) -> None:  # a signal to a process that is forked waits until `_forked`
    signal.pthread_sigmask(how, (signal.SIGTERM,))


def _forked() -> None:  # its socket is that of the process that was forked
    if signal.getsignal(signal.SIGTERM) in _asking:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _mask(signal.SIG_UNBLOCK)


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
