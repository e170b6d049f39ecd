"""One frame round code of plugins: whatever it raises becomes one line that names it.

    with foreign("method 'x' of plugin 'y'"):
        method.train(turn)

An error of the plugin's own that is meant for people (`ZooError`) goes through as it is, and so
does KeyboardInterrupt, which is the user's.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from salt_zoo.errors import TrainingError, ZooError, reason, text_of

#: Where this environment variable is set, tracebacks are shown beside the lines.
TRACEBACK = "SALT_ZOO_TRACEBACK"


class ForeignError(TrainingError):
    """Code of a plugin went wrong; the line names the plugin and the part."""


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
        if error is None or isinstance(error, ZooError | KeyboardInterrupt | GeneratorExit):
            return
        raise ForeignError(f"{self.what}: {explain(error)}") from error


def explain(error: BaseException) -> str:
    """Any error in one line: a message for people as it is, others with their class; the lack of
    memory with what helps."""
    if isinstance(error, ZooError):
        return text_of(error)
    if lacks_memory(error):
        return (
            f"not enough memory ({reason(error)}); lower training.batch_size, or raise "
            "training.gradient_accumulation"
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


def show_traceback(error: BaseException) -> None:
    """Print where an error comes from, if that is asked for."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error, file=sys.stderr)
