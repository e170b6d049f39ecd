"""The progress of a training: a live bar in a terminal, now and then a line in a log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from salt_zoo.core.base.ranks import is_main_process
from salt_zoo.io.consoles import NotesConsole
from salt_zoo.io.durations import in_words

#: Called after each update with (student updates done, student updates in all, what was logged).
Update = Callable[[int, int, Mapping[str, float]], None]

#: Seconds between two lines where there is no terminal.
SECONDS = 30.0


@contextlib.contextmanager
def every(seconds: float, say: Callable[[], None]) -> Iterator[None]:
    """Call `say` again and again inside the block, whatever it is busy with."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more
                say()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def training_progress(name: str, unit: str = "student updates") -> Iterator[Update]:
    """Yields what the trainer calls after each update; quality numbers are printed as they come.

    `unit` is what is counted.
    """
    console = NotesConsole()
    if not is_main_process():
        yield lambda step, updates, logs: None
    elif console.is_terminal:
        with _bar(console, unit) as bar:
            yield _bar_update(bar, name)
    else:
        with _lines(console, name, unit, last_line=True) as update:
            yield update


def _bar(console: Console, unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}", markup=False),
        console=console,
    )


@contextlib.contextmanager
def stream_progress(frames: int | None) -> Iterator[Callable[[int, float], None]]:
    """Yields what a stream calls after each block with (frames done, frames a second).

    `frames` is the length of the stream; None is without end.
    """
    console = NotesConsole()
    if not console.is_terminal:
        with _stream_lines(console, frames) as update:
            yield update
        return
    columns = [] if frames is None else [BarColumn()]
    count = TextColumn("{task.completed}" if frames is None else "{task.completed}/{task.total}")
    end = "; Ctrl-C ends it" if frames is None else ""
    shown = TextColumn("frames  {task.fields[rate]:.1f} a second" + end)
    with Progress(*columns, count, shown, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("", total=frames, rate=0.0)
        yield lambda done, rate: bar.update(task, completed=done, rate=rate)


@contextlib.contextmanager
def _stream_lines(console: Console, frames: int | None) -> Iterator[Callable[[int, float], None]]:
    last = (0, 0.0)

    def update(done: int, rate: float) -> None:
        nonlocal last
        last = (done, rate)

    def say() -> None:
        done, rate = last
        length = "" if frames is None else f"/{frames}"
        line = f"stream {done}{length} frames  {rate:.1f} a second"
        console.print(line, highlight=False, markup=False)

    with every(SECONDS, say):
        yield update


@contextlib.contextmanager
def told_bar(name: str, unit: str = "parts") -> Iterator[Callable[[int, int], None]]:
    """Yields what a computation calls with (parts done, parts in all); without a terminal a line
    every half minute."""
    console = NotesConsole()
    if not console.is_terminal:
        with _lines(console, name, unit) as update:
            yield lambda done, total: update(done, total, {})
        return
    with _bar(console, unit) as bar:
        task = bar.add_task(name, total=None, shown="")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar_update(bar: Progress, name: str) -> Update:
    task: TaskID | None = None

    def update(step: int, updates: int, logs: Mapping[str, float]) -> None:
        nonlocal task
        shown = losses(logs)
        if task is None:
            # added at the first update: a resumed run must not count as one very fast step
            task = bar.add_task(name, total=updates, completed=step, shown=shown)
        else:
            bar.update(task, completed=step)
            if shown:  # on CUDA most updates log nothing: the last loss stays
                bar.update(task, shown=shown)
        if text := quality(logs):
            bar.console.print(
                f"student update {step}: {shown}  {text}", highlight=False, markup=False
            )

    return update


@contextlib.contextmanager
def _lines(console: Console, name: str, unit: str, *, last_line: bool = False) -> Iterator[Update]:
    """A line every half minute, however long one update takes; quality numbers as they come, and
    with `last_line` how it ended."""
    began = time.monotonic()
    first: int | None = None
    last: tuple[int, int, Mapping[str, float]] | None = None

    def line() -> str:
        if first is None or last is None:
            return f"{name}: getting ready, {(time.monotonic() - began) / 60:.1f} min so far"
        step, updates, logs = last
        done = step - first
        left = f"{since_first() / done * (updates - step) / 60:.0f} min left" if done else ""
        if step == updates:
            left = f"done in {in_words(time.monotonic() - began)}"
        parts = (f"{name} {step}/{updates} {unit}", losses(logs), quality(logs), left)
        return "  ".join(part for part in parts if part)

    since = began

    def since_first() -> float:
        return time.monotonic() - since

    def say() -> None:
        console.print(line(), highlight=False, markup=False, soft_wrap=True)

    def update(step: int, updates: int, logs: Mapping[str, float]) -> None:
        nonlocal first, last, since
        if first is None:
            first, since = step, time.monotonic()
        last = step, updates, logs
        if quality(logs):
            say()

    with every(SECONDS, say):
        yield update
    if last_line and last is not None and not quality(last[2]):
        say()


def losses(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in logs.items() if k.endswith("/loss"))


def quality(logs: Mapping[str, float]) -> str:
    prefix = "quality/"
    found = {k.removeprefix(prefix): v for k, v in logs.items() if k.startswith(prefix)}
    return "  ".join(f"{k} {v:.4g}" for k, v in found.items())
