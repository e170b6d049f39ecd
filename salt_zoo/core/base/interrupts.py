"""Interrupts: those of the user, which end all, and those that code raises by itself."""

from __future__ import annotations

import signal


class Stopped(KeyboardInterrupt):
    """A signal asks this process to end: Ctrl-C, a scheduler, a terminal that was closed."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def is_users(error: BaseException | None) -> bool:
    """Whether an error says that the user, or the system, wants this process to end.

    A command turns every signal into `Stopped` (`salt_zoo.io.signals.signals_clean_up`), so that
    any other KeyboardInterrupt there is an error like others, raised by whoever raised it; unless
    it was raised in place of one. Elsewhere Python's own handler of Ctrl-C raises
    KeyboardInterrupt, and every one is the user's.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, Stopped):
            return True
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return False
