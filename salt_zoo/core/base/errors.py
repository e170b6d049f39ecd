"""Errors that are a message to a person, not a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from salt_zoo.core.base.interrupts import is_users


class ZooError(Exception):
    """A mistake that the user can mend: one line that says what, where and what would be right.

    The command line prints it and exits with `exit_code`.
    """

    exit_code = 2


class TrainingError(ZooError):
    """A run that started well and went wrong by itself (a loss that is not finite, a full disk).

    What was done before it is kept.
    """

    exit_code = 1


class MissingPackage(ZooError):
    """A part needs a package that is not installed; the line says how to get it.

    What only plans may go on without it.
    """


def reason(error: BaseException) -> str:
    """A foreign exception in one line of at most 300 characters."""
    return f"{type(error).__name__}: {text_of(error) or 'no reason given'}"[:300]


def text_of(error: BaseException) -> str:
    """The message of any error in one line, also of one that cannot tell it."""
    try:
        return " ".join(str(error).split())
    except BaseException as other:  # foreign code once more
        if is_users(other):
            raise
        return f"its message cannot be shown ({type(other).__name__})"


def shown(value: object, most: int = 60) -> str:
    """A value as Python writes it, on one line of at most `most` letters: for error lines."""
    try:
        text = " ".join(repr(value[: most + 40] if isinstance(value, str) else value).split())
    except Exception:  # code of a plugin, too
        text = f"an object of the class {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def as_given(text: str) -> str:
    """A word of the command line as it was typed; quoted where it would not be seen."""
    return text if text.strip() and text.isprintable() and len(text) <= 200 else shown(text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The ending of an error line: the nearest known names, or all of them.

    >>> did_you_mean("dmdd", ["dmd", "cda"])
    "did you mean 'dmd'?"
    >>> did_you_mean("zebra", ["dmd", "cda"])
    'known: cda, dmd'
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    return f"known: {', '.join(names)}" if names else "none is known"
