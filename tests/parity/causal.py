"""The causal network of G2, G3, G4 and G9, and the released codes' times around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.networks.blocks import Blocks, Renoise
from salt_zoo.rollout.sampler import full_time
from salt_zoo_self_forcing.cache import KVCache, Policy
from salt_zoo_self_forcing.memories.full import FullMemory, FullMemoryConfig
from salt_zoo_self_forcing.memories.window import WindowMemory, WindowMemoryConfig
from salt_zoo_self_forcing.transformer.network import CausalWanNetwork
from salt_zoo_wan.checkpoint.load import load_transformer
from tests.parity.g1 import transformer_config
from tests.parity.goldens import Check, Golden, load, video


def policy(facts: dict[str, Any]) -> Policy:
    """The memory that `local_attn_size` and `sink_size` of the released codes stand for."""
    local = facts.get("local_attn_size", -1)
    if local < 0:
        return FullMemory(FullMemoryConfig(), None)
    return WindowMemory(WindowMemoryConfig(frames=local, sink=facts.get("sink_size", 0)), None)


def network(golden: Golden, memory: Policy, frames: int = 3, first: int | None = None) -> Any:
    """Our causal network with the golden's weights, in blocks of `frames` frames."""
    blocks = Blocks(frames, first=first, new_memory=lambda network, x: network.new_memory(x))
    weights = load(golden.folder / golden.facts["weights_file"])
    transformer = load_transformer(weights, transformer_config(golden.facts["config"])).eval()
    return CausalWanNetwork(transformer, 0, blocks, memory)


def noisy_passes(golden: Golden) -> list[str]:
    """Which noisy videos the golden holds."""
    return [name for name in ("a", "b") if f"in/noisy_{name}" in golden]


@torch.no_grad()
def three_passes(golden: Golden, model: Any) -> tuple[dict[str, Tensor], KVCache]:
    """Two noisy passes over every block, then the clean one that is remembered.

    The clean pass's velocity is asked for on its own; then `update_cache` computes it again.
    """
    clean, condition = golden["in/clean"], {"text": golden["in/context"]}
    memory: KVCache = model.new_memory(clean)
    passes = noisy_passes(golden)
    found: dict[str, list[Tensor]] = {f"v_{name}": [] for name in (*passes, "clean_pass")}
    for frames in model.partition.split(clean.shape[2]):
        for name in passes:
            x, t = golden[f"in/noisy_{name}"], golden[f"in/t_{name}"] / 1000
            found[f"v_{name}"].append(model(x[:, :, frames], t[:, frames], condition, memory))
        x = clean[:, :, frames]
        found["v_clean_pass"].append(model(x, full_time(0.0, x), condition, memory))
        model.update_cache(x, full_time(0.0, x), condition, memory)
    return {name: torch.cat(parts, dim=2) for name, parts in found.items()}, memory


def in_time_order(memory: KVCache, buffer: Tensor) -> Tensor:
    """The sink's frames, then the others from the oldest on; ours go round in a ring."""
    order = list(range(min(memory.count, memory.slots)))
    ring = getattr(memory.policy, "ring", None)
    if ring is not None:
        seen = ring.seen(memory.count - 1, 1)
        order.sort(key=seen.__getitem__)
    frames = buffer.unflatten(1, (-1, memory.shape.tokens))
    return frames[:, order].flatten(1, 2)


def memory_checks(golden: Golden, memory: KVCache, prefix: str = "out/") -> Iterator[Check]:
    for layer, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
        yield from golden.compare(f"{prefix}cache_k.{layer}", in_time_order(memory, keys))
        yield from golden.compare(f"{prefix}cache_v.{layer}", in_time_order(memory, values))


class Released:
    """The released codes' look-up grid, put around a network and its rollout.

    They look every sigma up in a grid of 1000 points that ends at 0.00498, but tell the network the
    time itself. With `sampler="sde"` the times of the rollout are the grid's, and the network is
    told the listed ones; `"ode"` steps by the listed times themselves, with velocities that lead
    to the clean estimate of the grid's. With `context`, a block is noised at the grid's end before
    it is remembered, and the network is told t = 0.

    Args:
        times: the listed times, in [0, 1].
        draws: `[N, f, C, H, W]`, all blocks' later draws in the order of the released code.
        each: draws of a block.
        context: which of a block's draws noises what is remembered; None remembers it as it is.
    """

    def __init__(
        self,
        model: Any,
        times: list[float],
        rng: Tensor,
        each: int,
        sampler: str,
        context: int | None,
    ) -> None:
        self.model, self.rng, self.each, self.context = model, rng, each, context
        listed = torch.tensor(times)
        sigmas = flow.nearest_sigma(listed, flow.published_sigmas(5)).tolist()
        self.end = flow.published_sigmas(5)[-1].item()
        self.times = times if sampler == "ode" else sigmas
        self._told = dict(zip(self.times, times, strict=True))
        self._sigmas = dict(zip(self.times, sigmas, strict=True))

    def __call__(self, x: Tensor, t: Tensor, condition: Any, memory: Any = None) -> Tensor:
        at = min(self.times, key=lambda time: abs(time - t[0].item()))
        v: Tensor = self.model(x, full_time(self._told[at], x), condition, memory)
        return self.scale(at) * v

    def scale(self, t: float) -> float:
        """What the network's velocity is multiplied by at a time of the rollout."""
        return self._sigmas[t] / t

    def update_cache(self, x: Tensor, t: Tensor, condition: Any, memory: Any) -> None:
        if self.context is not None:
            block = memory.count // x.shape[2]
            x = flow.add_noise(x, self.draw(block, self.context), self.end)
        self.model.update_cache(x, t, condition, memory)

    def new_memory(self, x: Tensor) -> KVCache:
        memory: KVCache = self.model.new_memory(x)
        return memory

    def renoise(self, block: int, t: float) -> Tensor:
        """The draw with which a block is noised again to `t`."""
        return self.draw(block, self.times.index(t) - 1)

    def draw(self, block: int, index: int) -> Tensor:
        return video(self.rng[block * self.each + index][None])


def renoise_of(rng: Tensor, each: int, times: list[float]) -> Renoise:
    """The same draws for a rollout in continuous times."""
    return lambda block, t: video(rng[block * each + times.index(t) - 1][None])
