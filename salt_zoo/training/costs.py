"""What a run computes: passes of each network, counted as they happen, and their FLOPs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

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
        for role, network in networks.items():
            self.counts[role] = {"forward": 0.0, "backward": 0.0}
            network.register_forward_pre_hook(self._hook(self.counts[role], frames))

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

    With `blocks` the video is passed block by block, each given the memory of those before it.
    Counted on a copy on the meta device: nothing is computed, and the counter sees the attention,
    which it misses where a CPU runs it fused.
    """
    network = copy.deepcopy(network).to("meta").requires_grad_(True)
    blocks = blocks or Blocks()
    x = torch.zeros(1, *latent_shape, device="meta")
    t = torch.full((1,), 0.5, device="meta")
    one = {name: value[:1].to("meta") for name, value in condition.items()}
    memory = blocks.memory(network, x)
    forward = whole = 0.0
    for frames in blocks.split(latent_shape[1]):
        part = x[:, :, frames]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(part, t, one, memory)
        forward += counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            loss = network(part, t, one, memory).sum()
            torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        whole += counter.get_total_flops()
        if memory is not None:
            rememberer: Any = network
            rememberer.remember(part, t, one, memory)
    return {"forward": forward, "backward": whole - forward}
