"""Few-step generation from noise, block by block: the one rollout of training and inference.

A bidirectional network is the one-block case without a memory. In training ("backward simulation":
DMD2, arXiv 2405.14867, section 4.5; block by block with a memory: Self Forcing, arXiv 2506.08009,
Algorithm 1) the steps before the exit step run without gradient, the exit step with, and its clean
estimate is the output; generation exits at the last step, without gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import Blocks, ExitStep, Renoise, Sampler
from salt_zoo.core.protocols import Condition, Memory, VelocityNetwork


def iter_rollout(
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
) -> Iterator[ExitStep]:
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
        steps = denoise(
            network,
            noise[:, :, frames],
            condition,
            times[: last + 1],
            block=block,
            frames=frames,
            memory=memory,
            renoise=renoise,
            sampler=sampler,
            gradient=gradient,
        )
        for step in steps:
            if every_step or step.step == last:
                yield step
        if block + 1 < len(parts):
            commit(network, step, blocks, renoise)


def denoise(
    network: VelocityNetwork,
    noise: Tensor,
    condition: Condition,
    times: Sequence[float],
    *,
    block: int,
    frames: slice,
    memory: Memory | None,
    renoise: Renoise,
    sampler: Sampler,
    gradient: bool = False,
) -> Iterator[ExitStep]:
    """All steps of one block, given the memory of the blocks before it; commits nothing.

    `sde` alternates clean estimates and fresh noise (multistep consistency sampling, arXiv
    2303.01469, Algorithm 1; DMD2, arXiv 2405.14867, section 4.4), `ode` takes Euler steps.

    Only the last step is recorded for backward, and only with `gradient`.
    """
    x = noise
    for k, t in enumerate(times):
        with torch.set_grad_enabled(gradient and k + 1 == len(times)):
            v = network(x, full_time(t, x), condition, memory)
            x0 = flow.x0_from_velocity(x, v, t)
        yield ExitStep(block, frames, k, t, x, v, x0, condition, memory)
        if k + 1 < len(times):
            with torch.no_grad():
                fresh = None if sampler == "ode" else renoise(block, times[k + 1])
                if fresh is None:
                    x = flow.euler_step(x, v, t, times[k + 1])
                else:
                    x = flow.add_noise(x0, fresh, times[k + 1])


@torch.no_grad()
def commit(network: VelocityNetwork, exit: ExitStep, blocks: Blocks, renoise: Renoise) -> None:
    """Write a finished block to its memory, where there is one."""
    if exit.memory is None:
        return
    t, x0 = blocks.context_noise, exit.x0.detach()
    fresh = renoise(exit.block, t) if t else None
    if fresh is not None:
        x0 = flow.add_noise(x0, fresh, t)
    network.update_cache(x0, full_time(t, x0), exit.condition, exit.memory)


def replay(
    network: VelocityNetwork, exits: Sequence[ExitStep], blocks: Blocks, renoise: Renoise
) -> Iterator[ExitStep]:
    """The exit steps of a finished `iter_rollout` once more, recorded for backward, one at a time.

    A caller that calls `backward` before it asks for the next one never holds more than one
    block's activations, however long the video is. Costs a pass and a memory write for each block.
    """
    like = torch.cat([exit.x for exit in exits], dim=2)
    memory = blocks.memory(network, like)
    for exit in exits:
        with torch.enable_grad():
            v = network(exit.x, full_time(exit.t, exit.x), exit.condition, memory)
            x0 = flow.x0_from_velocity(exit.x, v, exit.t)
        again = replace(exit, v=v, x0=x0, memory=memory)
        yield again
        if exit.block + 1 < len(exits):
            commit(network, again, blocks, renoise)


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
    """The generated video `[B, C, F, H, W]` of a `iter_rollout` without gradient."""
    exits = iter_rollout(
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


def initial_noise(rng: KeyedRNG, blocks: Blocks, latent_shape: Sequence[int]) -> Tensor:
    """The noise that a rollout starts from, `[B, C, F, H, W]`.

    Drawn block by block where there are blocks, so that a longer video begins as a shorter one and
    a stream need not know its end.
    """
    if blocks.frames is None:
        return rng.randn(latent_shape, "initial noise")
    count = len(blocks.split(latent_shape[1]))
    parts = [block_noise(rng, blocks, latent_shape, block) for block in range(count)]
    return torch.cat(parts, dim=2)


def block_noise(rng: KeyedRNG, blocks: Blocks, latent_shape: Sequence[int], block: int) -> Tensor:
    """The initial noise of one block, `[B, C, f, H, W]`."""
    channels, frames, height, width = latent_shape
    size = blocks.size(block, frames)
    return rng.randn((channels, size, height, width), "initial noise", block)


def renoise_from(rng: KeyedRNG, blocks: Blocks, latent_shape: Sequence[int]) -> Renoise:
    """Fresh noise for re-noising, keyed by block and time (not by step index), so that rollouts
    with different step lists share the noise at the times that they share."""
    channels, frames, height, width = latent_shape

    def draw(block: int, t: float) -> Tensor:
        size = blocks.size(block, frames)
        return rng.randn((channels, size, height, width), "renoise", block, round(1e6 * t))

    return draw
