"""Real videos in a causal network: blocks given clean (teacher forcing) or noisy blocks before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.protocols import Condition, MaskedForward, Memory, VelocityNetwork
from salt_zoo.rollout.sampler import full_time


def teacher_forced(
    networks: Sequence[VelocityNetwork], x0: Tensor, condition: Condition, blocks: Blocks
) -> Iterator[tuple[slice, list[Memory | None]]]:
    """Go through the blocks of clean videos, each network with a memory of the clean past.

    Yields each block's frames and one memory per network; a bidirectional backbone has one block
    with all frames and no memory. Call `backward` before asking for the next block.
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
                        network.update_cache(clean, full_time(0.0, clean), condition, memory)


def forward_teacher_forced(
    network: VelocityNetwork,
    x: Tensor,
    t: Tensor,
    x0: Tensor,
    condition: Condition,
    blocks: Blocks,
    *,
    masked: bool = True,
) -> Iterator[tuple[slice, Tensor]]:
    """Velocities of noisy videos `x`, every block given the clean blocks before it.

    `t` is `[B, F]`, equal within a block. Yields frames and their velocity: all frames in one
    pass with `masked` where the network is a `MaskedForward` and its memory allows that (the clean
    past then carries gradient, arXiv 2602.02214, stage 1), else block by block. Call `backward`
    before asking for the next.
    """
    if masked and isinstance(network, MaskedForward):
        v = network.forward_masked(x, t, x0, condition)
        if v is not None:
            yield slice(0, x.shape[2]), v
            return
    for frames, (memory,) in teacher_forced([network], x0, condition, blocks):
        yield frames, network(x[:, :, frames], t[:, frames.start], condition, memory)


def forward_block_causal(
    network: VelocityNetwork, x: Tensor, t: Tensor, condition: Condition, blocks: Blocks
) -> Iterator[tuple[slice, Tensor]]:
    """Velocities of noisy videos `x` `[B, C, F, H, W]`, every block given the noisy blocks before.

    `t` is `[B, F]`, equal within a block. Yields frames and their velocity: all frames in one
    block-causal pass (diffusion forcing, arXiv 2407.01392, Algorithm 1), or block by block from a
    memory without gradient where `MaskedForward.can_mask` excludes one pass over so many frames. A
    single block is passed with one time a video. Call `backward` before asking for the next.
    """
    count = x.shape[2]
    parts = blocks.split(count)
    if len(parts) == 1:
        yield parts[0], network(x, t[:, 0], condition)
    elif not isinstance(network, MaskedForward) or network.can_mask(count):
        yield slice(0, count), network(x, t, condition)
    else:
        memory = blocks.memory(network, x)
        for frames in parts:
            noisy, time = x[:, :, frames], t[:, frames.start]
            yield frames, network(noisy, time, condition, memory)
            if memory is not None and frames.stop < count:
                with torch.no_grad():
                    network.update_cache(noisy, time, condition, memory)
