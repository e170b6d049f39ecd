"""What is printed for people: text from elsewhere shows its control characters, lines on stderr are
short, and an output that knows few letters is no error."""

from __future__ import annotations

import io
import os
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from salt_zoo.core.base.ranks import is_main_process

#: Letters of a line on stderr; of a longer one both ends are kept: what is wrong, and the remedy.
LONGEST = 800

#: Control characters, lone surrogates, separators of lines, and marks that turn the direction of
#: what follows them.
_HIDDEN = ("Cc", "Cs", "Zl", "Zp")
_DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}


def visible(text: str) -> str:
    """`text` with everything that a terminal would obey instead of showing it written out, as in
    `\\x1b`; lines stay lines."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(letter) for letter in text)


def _visible(letter: str) -> str:
    if letter == "\n":
        return letter
    if unicodedata.category(letter) in _HIDDEN or ord(letter) in _DIRECTIONS:
        return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
    return letter


def one_line(text: str) -> str:
    """`text` as one visible line of at most `LONGEST` letters."""
    line = _cut(" ".join(text.split()), 2 * LONGEST)  # a text may have a million letters
    return _cut(visible(line), LONGEST)


def _cut(line: str, longest: int) -> str:
    if len(line) <= longest:
        return line
    half = (longest - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


#: Standard output, while nothing but results may go there.
_results: TextIO | None = None


@contextmanager
def results_only() -> Iterator[None]:
    """Inside the block standard output gets what `show` prints and nothing else: what plugins and
    libraries print goes to standard error, from whichever thread, past Python or by a program that
    they start."""
    global _results
    before, stdout = _results, sys.stdout
    try:
        with _apart(stdout) as _results:
            sys.stdout = sys.stderr
            try:
                yield
            finally:
                sys.stdout = stdout
    finally:
        _results = before


@contextmanager
def _apart(stdout: TextIO | None) -> Iterator[TextIO]:
    """`stdout` as a stream of its own, while its file descriptor is that of standard error."""
    if stdout is None:  # it was closed: nobody wants results
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            yield nowhere
        return
    try:
        if stdout.fileno() != 1:
            raise OSError("it is not standard output")
        stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError):  # it is a test's, or standard error is closed
        yield stdout
        return
    apart = os.fdopen(kept, "w", encoding=stdout.encoding, errors=stdout.errors)
    try:
        yield apart
    finally:
        with suppress(OSError):  # what could not be written was an error before
            apart.flush()
        os.dup2(kept, 1)
        with suppress(OSError):
            apart.close()


def results() -> TextIO:
    """Where results go: standard output."""
    return _results or sys.stdout


def say(line: str) -> None:
    """One line for people, on stderr; where nobody reads any more, the work goes on in silence."""
    lenient_outputs()
    try:
        print(one_line(line), file=sys.stderr)
    except BrokenPipeError:
        nobody_reads()


def nobody_reads() -> None:
    """From now on standard error goes nowhere: its reader has gone."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


@contextmanager
def noted_if_slow(line: str, seconds: float = 5.0) -> Iterator[None]:
    """Tells what the block is busy with (`note: ...` on stderr) once it has taken so long."""

    def note() -> None:
        with suppress(OSError, ValueError):  # nobody reads any more
            say(f"note: {line}")

    if not is_main_process():
        yield
        return
    timer = threading.Timer(seconds, note)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def say_once(line: str) -> None:
    """A warning, of one of several processes."""
    if is_main_process():
        say(f"warning: {line}")


def show(text: str | Path) -> None:
    """A result, on stdout: a path, or lines; it is not cut."""
    lenient_outputs()
    print(visible(str(text)), file=results(), flush=True)


def lenient_outputs() -> None:
    """From now on stdout and stderr write out letters that they cannot show, and do not raise."""
    for stream in (results(), sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="backslashreplace")
