"""Step lists with probabilities, and the path that a training rollout draws from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from salt_zoo.core import flow
from salt_zoo.core.base.config import Steps
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import RolloutPath, Sampler

#: Step lists by number of steps, each with its probability.
StepLists = dict[Steps, Annotated[float, Field(ge=0)]]


def one_list(steps: Any) -> Any:
    """A number of steps as step lists: a validator in front of `StepLists`."""
    return {steps: 1.0} if isinstance(steps, int | float) else steps


def check_probabilities(steps: StepLists) -> StepLists:
    """The same step lists: a validator behind `StepLists`.

    Raises:
        ValueError: their probabilities do not sum to 1.
    """
    if not steps or abs(sum(steps.values()) - 1) > 1e-6:
        raise ValueError("the probabilities of the step lists must sum to 1")
    return steps


def draw_path(
    steps: Mapping[int, float], timestep_shift: float, sampler: Sampler, rng: KeyedRNG
) -> RolloutPath:
    """The step list and the exit step of an update, the same for all blocks and processes.

    Every update has draws of its own: those of student and fake score are independent.
    """
    position, wanted = 0.0, rng.shared_rand("step list")
    counts = list(steps)
    chosen = counts[-1]
    for count in counts:
        position += steps[count]
        if wanted < position:
            chosen = count
            break
    times = flow.step_list(chosen, timestep_shift)
    return RolloutPath(times, rng.shared_randint(chosen, "exit step"), sampler)
