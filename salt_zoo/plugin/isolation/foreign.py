"""One frame round code of plugins: whatever it raises becomes one line that names it.

    with foreign("method 'x' of plugin 'y'"):
        method.train(step)

An error of the plugin's own that is meant for people (`ZooError`) goes through as it is, and so
does an interrupt of the user (`salt_zoo.core.base.interrupts`).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from salt_zoo.core.base.errors import TrainingError, ZooError, reason, text_of
from salt_zoo.core.base.interrupts import is_users
from salt_zoo.core.base.variables import is_on

#: Where this environment variable is on, tracebacks are shown beside the lines.
TRACEBACK = "SALT_ZOO_TRACEBACK"


class ForeignError(TrainingError):
    """Code of a plugin went wrong; the line names the plugin and the part."""


class BrokenPart(ForeignError):
    """A part cannot be made, or lacks what it must have: nothing was begun with it."""

    exit_code = 2


class foreign:
    """Turns what is raised inside the block into a `ForeignError` that begins with `what`."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, ZooError | GeneratorExit) or is_users(error):
            return
        raise ForeignError(f"{self.what}: {explain(error)}") from error


@contextmanager
def blaming(zoo: Any) -> Iterator[None]:
    """Whatever code of a plugin lets out of the block, through whichever of ours, becomes a
    `ForeignError` that names its part: a net under all frames. Our own errors go through."""
    try:
        yield
    except BaseException as error:
        ours = isinstance(error, ZooError) or is_users(error)
        part = None if ours else guilty(error, zoo)
        if part is None:
            raise
        raise ForeignError(f"{part}: {explain(error)}") from error


def guilty(error: BaseException, zoo: Any) -> str | None:
    """In whose code an error arose: the innermost part, or plugin, that was being run."""
    modules = {module: plugin for plugin in zoo.plugins if (module := zoo.module_of(plugin))}
    owners = {module.partition(".")[0]: plugin for module, plugin in modules.items()}
    found = None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        module = str(frame.f_globals.get("__name__", ""))
        plugin = modules.get(module) or owners.get(module.partition(".")[0])
        if plugin is None:
            continue
        found = found or f"plugin {plugin!r}"
        classes = type(frame.f_locals.get("self")).__mro__
        for registry in zoo.registries:
            for entry in registry:
                if any(entry.is_made_by(one) for one in classes):
                    return f"{entry.kind} {entry}"
    return found


def explain(error: BaseException) -> str:
    """Any error in one line: a message for people as it is, others with their class; the lack of
    memory with what helps."""
    if isinstance(error, ZooError):
        return text_of(error)
    if lacks_memory(error):
        return (
            f"not enough memory ({reason(error)}); to train, set a smaller "
            "execution.micro_batch; to make videos, take fewer or shorter ones"
        )
    return reason(error)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: torch has a class of its own for a GPU
    and a plain RuntimeError for a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in reason(error) or "out of memory" in reason(error)
    )


@contextmanager
def fitting_batch(where: str, batch_size: int) -> Iterator[None]:
    """Lack of memory for a batch becomes a `TrainingError` that says what to lower; `where` is the
    folder or the recipe. A folder is keyed by its batch size, so another one needs another."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # a CPU's lack is a RuntimeError
        if not lacks_memory(error):
            raise
        raise TrainingError(
            f"{where}: not enough memory for batch_size {batch_size}; lower it, in another folder"
        ) from None


def show_traceback(error: BaseException) -> None:
    """Print where an error comes from, if that is asked for."""
    if is_on(TRACEBACK):
        traceback.print_exception(error, file=sys.stderr)
