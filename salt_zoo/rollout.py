"""Few-step generation from noise, block by block: the one rollout of training and inference.

A bidirectional network is the one-block case without a memory. In training ("backward simulation",
arXiv 2405.14867, 2506.08009) the steps before the exit step run without gradient, the exit step
with, and its clean estimate is the output; generation exits at the last step, without gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from salt_zoo import flow
from salt_zoo.draws import Draws
from salt_zoo.guidance import Guided
from salt_zoo.protocols import Condition, Memory, VelocityNetwork

#: How a step goes on to the next time: by noising the clean estimate anew, or along the velocity.
Sampler = Literal["sde", "ode"]
#: Noise for one block at the time to which it is noised again: `(block, time) -> [B, C, f, H, W]`.
Renoise = Callable[[int, float], Tensor]


@dataclass(frozen=True)
class Blocks:
    """In which blocks of frames a backbone generates, and the memory that joins them.

    `frames` is None for all frames at once. `new_memory(network, x)` makes an empty memory for
    videos like `x` `[B, C, F, H, W]`.
    """

    frames: int | None = None
    new_memory: Callable[[Any, Tensor], Memory] | None = None

    def split(self, frames: int) -> list[slice]:
        """The blocks of a video of `frames` frames.

        Raises:
            ValueError: the blocks do not fill the video.
        """
        size = self.frames or frames
        if frames % size:
            raise ValueError(f"{frames} frames cannot be split into blocks of {size}")
        return [slice(start, start + size) for start in range(0, frames, size)]

    def memory(self, network: Any, x: Tensor) -> Memory | None:
        """An empty memory of `network` for videos like `x`; None for a bidirectional one."""
        if self.new_memory is None:
            return None
        if isinstance(network, Guided):  # it holds a row for each half of its doubled batch
            return network.new_memory(self.new_memory, x)
        return self.new_memory(network, x)


@dataclass(frozen=True)
class Exit:
    """The exit step of one block, before the block is committed to the memory.

    `x` is the step's input at time `t`, `v` the network's velocity there and `x0` the clean
    estimate; `v` and `x0` carry the gradient.
    """

    block: int
    frames: slice
    step: int
    t: float
    x: Tensor
    v: Tensor
    x0: Tensor
    condition: Condition
    memory: Memory | None


def walk(
    network: VelocityNetwork,
    noise: Tensor,
    condition: Condition,
    times: Sequence[float],
    *,
    blocks: Blocks,
    renoise: Renoise,
    exit_step: int | None = None,
    sampler: Sampler = "sde",
    gradient: bool = False,
    every_step: bool = False,
) -> Iterator[Exit]:
    """Generate block by block, handing out each block's exit step before committing the block.

    Args:
        noise: `[B, C, F, H, W]`, standard normal.
        times: falling times in (0, 1]; the network is evaluated at each.
        exit_step: index into `times` of the last step that runs; None is the last of all.
        gradient: whether the exit step is recorded for backward. Earlier steps never are, and no
            gradient flows through the memory.
        every_step: hand out the earlier steps of a block, too (without gradient).
    """
    times = flow.check_times(times)
    last = len(times) - 1 if exit_step is None else exit_step
    if not 0 <= last < len(times):
        raise ValueError(f"exit step {last} is not one of {len(times)} steps")
    parts = blocks.split(noise.shape[2])
    memory = blocks.memory(network, noise)
    for block, frames in enumerate(parts):
        x = noise[:, :, frames]
        for k in range(last):
            with torch.no_grad():
                v = network(x, full_time(times[k], x), condition, memory)
                x0 = flow.x0_from_velocity(x, v, times[k])
            if every_step:
                yield Exit(block, frames, k, times[k], x, v, x0, condition, memory)
            with torch.no_grad():
                if sampler == "ode":
                    x = flow.euler_step(x, v, times[k], times[k + 1])
                else:
                    x = flow.add_noise(x0, renoise(block, times[k + 1]), times[k + 1])
        t = times[last]
        with torch.set_grad_enabled(gradient):
            v = network(x, full_time(t, x), condition, memory)
            x0 = flow.x0_from_velocity(x, v, t)
        yield Exit(block, frames, last, t, x, v, x0, condition, memory)
        if memory is not None and block + 1 < len(parts):
            with torch.no_grad():
                network.remember(x0.detach(), full_time(0.0, x), condition, memory)


def rollout(
    network: VelocityNetwork,
    noise: Tensor,
    condition: Condition,
    times: Sequence[float],
    *,
    blocks: Blocks,
    renoise: Renoise,
    exit_step: int | None = None,
    sampler: Sampler = "sde",
) -> Tensor:
    """The generated video `[B, C, F, H, W]` of a `walk` without gradient."""
    exits = walk(
        network,
        noise,
        condition,
        times,
        blocks=blocks,
        renoise=renoise,
        exit_step=exit_step,
        sampler=sampler,
    )
    return torch.cat([exit.x0 for exit in exits], dim=2)


def full_time(t: float, x: Tensor) -> Tensor:
    """The time `t` for every video of `x`: `[B]`."""
    return torch.full((x.shape[0],), t, device=x.device, dtype=torch.float32)


def renoise_from(draws: Draws, blocks: Blocks, latent_shape: Sequence[int]) -> Renoise:
    """Fresh noise for re-noising, keyed by block and time (not by step index), so that rollouts
    with different step lists share the noise at the times that they share."""
    channels, frames, height, width = latent_shape

    def draw(block: int, t: float) -> Tensor:
        size = blocks.frames or frames
        return draws.normal((channels, size, height, width), "renoise", block, round(1e6 * t))

    return draw


def teacher_forced(
    networks: Sequence[VelocityNetwork], x0: Tensor, condition: Condition, blocks: Blocks
) -> Iterator[tuple[slice, list[Memory | None]]]:
    """Go through the blocks of clean videos, each network with a memory of the clean past.

    Yields each block's frames and one memory per network; a bidirectional backbone has one block
    with all frames and no memory.
    """
    memories = [blocks.memory(network, x0) for network in networks]
    parts = blocks.split(x0.shape[2])
    for block, frames in enumerate(parts):
        yield frames, memories
        if block + 1 < len(parts):
            for network, memory in zip(networks, memories, strict=True):
                if memory is not None:
                    clean = x0[:, :, frames]
                    with torch.no_grad():
                        network.remember(clean, full_time(0.0, clean), condition, memory)
