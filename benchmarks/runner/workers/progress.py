"""The progress of a study: bars on a terminal, lines in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.runner.workers.processes import AGAIN
from salt_zoo.cli import progress
from salt_zoo.core.base.ranks import is_main_process
from salt_zoo.io.consoles import NotesConsole

#: What ends a piece of work.
ENDS = ("done", "failed", AGAIN)

#: Called with the piece's index, updates done, updates in all, and what is being done, or one of
#: `ENDS`.
Show = Callable[[int, int, int, str], None]


@contextlib.contextmanager
def study_progress(names: Sequence[str]) -> Iterator[Show]:
    """Yields the callback for the progress of the pieces, which are named in their order.

    Without a terminal there is a line whenever a piece is done, and every half minute one that
    says what is being done.
    """
    console = NotesConsole()
    if not is_main_process():
        yield lambda index, step, updates, what: None
    elif console.is_terminal:
        with _bars(console, names) as show:
            yield show
    else:
        log = _Log(console, names)
        with progress.every(progress.SECONDS, log.say):
            yield log.show


@contextlib.contextmanager
def _bars(console: Console, names: Sequence[str]) -> Iterator[Show]:
    tasks: dict[int, TaskID] = {}
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[what]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        whole = bar.add_task("study", total=len(names), what="")

        def show(index: int, step: int, updates: int, what: str) -> None:
            if what in ENDS:
                if index in tasks:
                    bar.remove_task(tasks.pop(index))
                if what == AGAIN:
                    bar.console.print(_again(names[index]), highlight=False, markup=False)
                else:
                    bar.advance(whole)
                return
            if index not in tasks:
                tasks[index] = bar.add_task(names[index], total=updates, what=what)
            bar.update(tasks[index], completed=step, total=updates, what=what)

        yield show


class _Log:
    """Lines for a file."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self.console, self.names = console, names
        self.began = time.monotonic()
        self.ended = 0
        self.running: dict[int, tuple[int, int, str]] = {}

    def show(self, index: int, step: int, updates: int, what: str) -> None:
        if what == AGAIN:
            self.running.pop(index, None)
            self._print(_again(self.names[index]))
        elif what in ENDS:
            self.running.pop(index, None)
            self.ended += 1
            self._print(f"{what}: {self.names[index]} ({self.ended} of {len(self.names)})")
        else:
            self.running[index] = step, updates, what

    def say(self) -> None:
        parts = [
            f"{what} {self.names[index]}" + (f" {step}/{updates}" if updates > 1 else "")
            for index, (step, updates, what) in sorted(self.running.items())
        ]
        minutes = (time.monotonic() - self.began) / 60
        self._print(
            f"{self.ended} of {len(self.names)} done after {minutes:.1f} min; "
            + (", ".join(parts) or "getting ready")
        )

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _again(name: str) -> str:
    return f"its process died, tried again when all else is done: {name}"
