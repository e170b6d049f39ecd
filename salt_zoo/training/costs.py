"""What a run computes: passes of each network, counted as they happen, and their FLOPs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from salt_zoo.protocols import Condition
from salt_zoo.rollout import Blocks


class PassCounter:
    """Counts, per role, network passes in units of one whole video.

    A pass over a block of frames counts by its share of the frames; guidance doubles the batch and
    so counts twice. `backward` counts the passes that were recorded for a gradient.
    """

    def __init__(self, networks: Mapping[str, nn.Module], frames: int) -> None:
        self.counts: dict[str, dict[str, float]] = {}
        self.paused = False  # quality measured during training is no cost of the method
        self._handles = []
        for role, network in networks.items():
            self.counts[role] = {"forward": 0.0, "backward": 0.0}
            hook = self._hook(self.counts[role], frames)
            self._handles.append(network.register_forward_pre_hook(hook))

    def remove(self) -> None:
        """Count no further; the counts stay."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, count: dict[str, float], frames: int) -> Any:
        def before(network: nn.Module, args: tuple[Any, ...]) -> None:
            if self.paused:
                return
            x = args[0]
            videos = x.shape[0] * x.shape[2] / frames
            count["forward"] += videos
            if torch.is_grad_enabled() and (
                x.requires_grad or next(network.parameters()).requires_grad
            ):
                count["backward"] += videos

        return before


def flops_per_pass(
    network: nn.Module,
    condition: Condition,
    latent_shape: tuple[int, ...],
    blocks: Blocks | None = None,
) -> dict[str, float]:
    """FLOPs of one forward and of one backward pass over one video, by torch's counter.

    With `blocks` the video is passed block by block, each given the memory of those before it. Of
    more than three blocks, only the first, the middle and the last are counted and the others
    interpolated: attention grows evenly with what is remembered.
    Counted on a copy on the meta device: nothing is computed, and the counter sees the attention,
    which it misses where a CPU runs it fused.
    """
    network = copy.deepcopy(network).to("meta").requires_grad_(True)
    blocks = blocks or Blocks()
    x = torch.zeros(1, *latent_shape, device="meta")
    t = torch.full((1,), 0.5, device="meta")
    one = {name: value[:1].to("meta") for name, value in condition.items()}
    memory, parts = blocks.memory(network, x), blocks.split(latent_shape[1])
    last = len(parts) - 1
    counted: dict[int, tuple[float, float]] = {}
    for block, frames in enumerate(parts):
        part = x[:, :, frames]
        if len(parts) <= 3 or block in (0, last // 2, last):
            with FlopCounterMode(display=False) as counter:
                loss = network(part, t, one, memory).sum()
                forward = counter.get_total_flops()
                torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
            counted[block] = float(forward), float(counter.get_total_flops() - forward)
        if memory is not None and block < last:
            rememberer: Any = network
            rememberer.remember(part, t, one, memory)
    whole = [
        float(np.interp(range(len(parts)), list(counted), values).sum())
        for values in zip(*counted.values(), strict=True)
    ]
    return {"forward": whole[0], "backward": whole[1]}
