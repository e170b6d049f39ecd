"""Consoles of rich whose reader may leave: its own end the process then, with exit code 1."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console

from salt_zoo.io.printing import nobody_reads, results


class ResultsConsole(Console):
    """Standard output. Where its reader has seen enough, as `head` has, so has the command
    (BrokenPipeError)."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(file=results(), width=width)

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class NotesConsole(Console):
    """Standard error, for progress. Where nobody reads any more, the work goes on in silence."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nobody_reads()
