"""Generating videos for prompts: with a few-step student, or with the teacher at full steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from salt_zoo.core import first_frame, flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.first_frame import FirstFrames
from salt_zoo.core.guidance import Guided
from salt_zoo.core.networks.blocks import Blocks, Sampler
from salt_zoo.core.networks.condition import encode, unconditional
from salt_zoo.core.protocols import Backbone
from salt_zoo.rollout.sampler import initial_noise, renoise_from, rollout


class SamplingConfig(StrictModel):
    """How a network is sampled."""

    steps: Annotated[int, Field(ge=1, le=10_000)] = 4
    sampler: Sampler = "sde"
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: 1 is conditional only, which is how distilled students run.
    guidance_scale: float = 1.0
    #: The times of the steps, falling within (0, 1], in place of `flow.step_list`.
    times: list[float] | None = None

    @model_validator(mode="after")
    def _as_many_times(self) -> SamplingConfig:
        if self.times is not None and len(flow.check_times(self.times)) != self.steps:
            raise ValueError(f"{len(self.times)} times are not {self.steps} steps")
        return self

    @property
    def step_times(self) -> list[float]:
        """The times at which the network is evaluated."""
        return self.times or flow.step_list(self.steps, self.timestep_shift)

    def passes(self, blocks: Blocks, frames: int) -> dict[str, float]:
        """Network passes per generated video of `frames` latent frames, in whole videos.

        `nfe` are the steps, each of which visits every block once; `guidance` the same again where
        there is guidance. `memory` are the passes that write finished blocks into the memory: all
        frames but the last block's, twice with guidance. `PassCounter` counts their sum.
        """
        twice = 2 if self.guidance_scale != 1 else 1
        written = 0.0
        if blocks.new_memory is not None:
            written = twice * blocks.split(frames)[-1].start / frames
        return {"nfe": self.steps, "guidance": self.steps * (twice - 1), "memory": written}


def prompt_draws(
    seed: int, prompt: str, occurrences: Sequence[int], device: torch.device | str = "cpu"
) -> KeyedRNG:
    """The draws of the videos of one prompt that `salt-zoo sample` and `stream` make.

    They depend on the prompt and on how many of it come before, not on what else is in a list.
    """
    return KeyedRNG(seed, ("sample", prompt), occurrences, device)


@torch.inference_mode()
def generate(
    network: Any,
    backbone: Backbone,
    prompts: Sequence[str],
    rng: KeyedRNG,
    config: SamplingConfig,
    batch_size: int = 32,
    frames: int | None = None,
    first_frames: FirstFrames | None = None,
) -> Tensor:
    """Latents `[N, C, F, H, W]` for the prompts, one row of `rng` each.

    Noise is keyed by the row, so that neither the batch size nor the other prompts change a video,
    and all networks that are given the same generator start from the same noise.

    `frames` are latent frames; None is the backbone's own length. A longer video of an
    autoregressive backbone begins as a shorter one does. `first_frames` are those of the prompts,
    for a backbone that generates from them.

    Raises:
        ZooError: the backbone needs first frames and there are none, or the other way round.
    """
    rows = list(rng.rows)
    if len(rows) != len(prompts):
        raise ValueError(
            f"{len(prompts)} prompts need {len(prompts)} rows of draws, not {len(rows)}"
        )
    images = first_frame.check(backbone, first_frames)
    times = config.step_times
    blocks, shape = backbone.blocks(network), backbone.latent_shape
    if frames is not None:
        shape = (shape[0], frames, *shape[2:])
    made = []
    for first in range(0, len(rows), batch_size):
        some = rng.for_rows(rows[first : first + batch_size])
        texts = list(prompts[first : first + batch_size])
        image = images(range(first, first + len(texts)))
        nothing = {**unconditional(backbone, len(texts)), **image}
        made.append(
            rollout(
                Guided(network, nothing, config.guidance_scale),
                initial_noise(some, blocks, shape),
                {**encode(backbone, texts), **image},
                times,
                blocks=blocks,
                renoise=renoise_from(some, blocks, shape),
                sampler=config.sampler,
            )
        )
    return torch.cat(made)
