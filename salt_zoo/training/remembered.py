"""How a student wants to be sampled, told by the options of the method that has trained it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def sampling_of(method: BaseModel) -> dict[str, Any]:
    """`steps`, `sampler` and `timestep_shift`, as far as the method has options of these names.

    Of several step lists with probabilities (`{8: 0.4, 4: 0.4, 2: 0.2}`) it is the likeliest, and
    of equally likely ones the longest.
    """
    options = method.model_dump()
    found: dict[str, Any] = {}
    steps = options.get("steps")
    if isinstance(steps, Mapping) and steps:
        steps = max((share, count) for count, share in steps.items())[1]
    if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0:
        found["steps"] = steps
    if options.get("sampler") in ("sde", "ode"):
        found["sampler"] = options["sampler"]
    shift = options.get("timestep_shift")
    if isinstance(shift, int | float) and not isinstance(shift, bool) and shift > 0:
        found["timestep_shift"] = float(shift)
    return found
