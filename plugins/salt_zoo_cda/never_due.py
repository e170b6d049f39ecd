"""When a training would never use `cache-alignment`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salt_zoo_dmd.never_due import listed

_KEY = "method.objectives.cache-alignment"


def cache_alignment(options: Mapping[str, Any], updates: int, drawn: set[int]) -> str | None:
    """It is used from `start` on, on the step lists that have a reference."""
    if options["start"] >= updates:
        return (
            f"{_KEY}.start is {options['start']} and training.updates {updates}, both in student "
            "updates; choose a start below the updates"
        )
    sparse = {int(steps) for steps in options["reference"]}
    if sparse & drawn:
        return None
    return (
        f"{_KEY}.reference aligns lists of {listed(sparse)} steps and method.steps has "
        f"{listed(drawn)}; name at least one list in both"
    )
