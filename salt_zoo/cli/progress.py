"""A progress bar of updates with loss and remaining time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def training_progress(name: str) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """Yields what the trainer calls after each update; quality numbers are printed as they come."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=None, shown="")

        def update(step: int, updates: int, logs: Mapping[str, float]) -> None:
            losses = {k: v for k, v in logs.items() if k.endswith("/loss")}
            shown = "  ".join(f"{k} {v:.4g}" for k, v in losses.items())
            fields = {"shown": shown} if shown else {}
            bar.update(task, completed=step, total=updates, **fields)
            quality = {k: v for k, v in logs.items() if k.startswith("quality/")}
            if quality:
                text = "  ".join(f"{k[8:]} {v:.4g}" for k, v in quality.items())
                console.print(f"update {step}: {shown}  {text}", highlight=False, markup=False)

        yield update
