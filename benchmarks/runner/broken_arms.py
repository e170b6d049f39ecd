"""Arms whose parts cannot be made: each costs a line and its own row, never the study."""

from __future__ import annotations

from collections.abc import Mapping

from salt_zoo.config.run import Resolved
from salt_zoo.io.printing import say_once
from salt_zoo.plugin.foreign import ForeignError, show_traceback
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.versions import Versions
from salt_zoo.training.origin import make_parts


def without_broken_arms(
    runs: Mapping[str, Resolved], zoo: Zoo
) -> tuple[dict[str, Resolved], dict[str, str]]:
    """The runs whose method, backbone and dataset can be made, and by label why others cannot.

    Raises:
        ForeignError: none can.
    """
    kept: dict[str, Resolved] = {}
    broken: dict[str, str] = {}
    last: ForeignError | None = None
    versions = Versions(zoo)  # which reads the code of each part once
    for label, run in runs.items():
        try:
            make_parts(run, zoo, versions)
        except ForeignError as error:
            show_traceback(error)
            broken[label], last = str(error), error
        else:
            kept[label] = run
    if last is not None and not kept:
        raise last
    for label, line in broken.items():
        say_once(f"arm {label!r}: {line}; the study continues without it")
    return kept, broken
