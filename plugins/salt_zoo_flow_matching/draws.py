"""What flow matching draws in every update beside noise: times, and whose prompt is dropped."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.networks.condition import choose
from salt_zoo.core.protocols import Condition, TrainStep


def times_by_block(step: TrainStep, frames: int, timestep_shift: float) -> Tensor:
    """An independent shifted time for every block of every video, `[B, F]` in [0, 1)."""
    parts = []
    for block, place in enumerate(step.blocks.split(frames)):
        t = flow.training_times(step.rng.rand("time", block), timestep_shift)
        parts.append(repeat(t, "b -> b f", f=place.stop - place.start))
    return torch.cat(parts, dim=1)


def with_dropout(step: TrainStep, share: float) -> Condition:
    """The batch's conditions, a `share` of them replaced by the empty prompt's, for guidance.

    Not by the negative prompt: that is a prompt like any other, chosen when a network is sampled,
    and its videos are not those of all prompts.
    """
    batch = step.batch
    dropped = step.rng.rand("prompt dropout") < share
    nothing = batch.unconditional if batch.no_prompt is None else batch.no_prompt
    return choose(dropped, nothing, batch.condition)
