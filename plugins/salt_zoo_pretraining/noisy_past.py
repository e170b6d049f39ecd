"""Velocities of noisy videos whose blocks see the noisy blocks before them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core.blocks import Blocks
from salt_zoo.core.protocols import Condition


def forward_block_causal(
    network: Any, x: Tensor, t: Tensor, condition: Condition, blocks: Blocks
) -> Iterator[tuple[slice, Tensor]]:
    """Velocities of videos `x` `[B, C, F, H, W]` at times `t` `[B, F]`, equal within a block.

    Yields frames and their velocity: all frames in one block-causal pass (arXiv 2407.01392), or
    block by block from a memory without gradient where the network has `can_mask` and it says that
    a video of so many frames does not fit into one pass. A single block is passed with one time a
    video. Call `backward` before asking for the next.
    """
    count = x.shape[2]
    parts = blocks.split(count)
    can_mask = getattr(network, "can_mask", None)
    if len(parts) == 1:
        yield parts[0], network(x, t[:, 0], condition)
    elif can_mask is None or can_mask(count):
        yield slice(0, count), network(x, t, condition)
    else:
        memory = blocks.memory(network, x)
        for frames in parts:
            noisy, time = x[:, :, frames], t[:, frames.start]
            yield frames, network(noisy, time, condition, memory)
            if memory is not None and frames.stop < count:
                with torch.no_grad():
                    network.update_cache(noisy, time, condition, memory)
