"""Arms whose code fails before any training: each costs a line and its own row, never the study."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from salt_zoo.config.run import Resolved
from salt_zoo.io.printing import say_once
from salt_zoo.plugin.isolation.foreign import ForeignError, show_traceback
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.versions import Versions
from salt_zoo.training.data.origin import make_parts


def without_broken_arms(
    runs: Mapping[str, Resolved], zoo: Zoo
) -> tuple[dict[str, Resolved], dict[str, str]]:
    """The runs whose method, backbone and dataset can be made, and by label why others cannot.

    Raises:
        ForeignError: none can.
    """
    versions = Versions(zoo)  # which reads the code of each part once

    def made(run: Resolved) -> Resolved:
        make_parts(run, zoo, versions)
        return run

    return each_arm(runs, made)


def each_arm(
    runs: Mapping[str, Resolved], does: Callable[[Resolved], Resolved]
) -> tuple[dict[str, Resolved], dict[str, str]]:
    """What `does` makes of each run, and by label the line of those whose code fails in it.

    Raises:
        ForeignError: all fail.
    """
    kept: dict[str, Resolved] = {}
    broken: dict[str, str] = {}
    last: ForeignError | None = None
    for label, run in runs.items():
        try:
            kept[label] = does(run)
        except ForeignError as error:
            show_traceback(error)
            broken[label], last = str(error), error
    if last is not None and not kept:
        raise last
    for label, line in broken.items():
        say_once(f"arm {label!r}: {line}; the study continues without it")
    return kept, broken
