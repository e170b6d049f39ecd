"""`check_memory` finds what it looks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from salt_zoo.conformance import check_memory
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo_self_forcing.cache import KVCache, Placement
from salt_zoo_self_forcing.masks import Span
from salt_zoo_self_forcing.memories.window import WindowMemory
from tests.blocks.plugin import Means, ToyBackbone, ToyNetwork
from tests.conftest import PROMPT


class Greedy(ToyNetwork):
    """A pass adds to what is remembered."""

    def forward(self, x: Tensor, t: Tensor, condition: Any, memory: Any = None) -> Tensor:
        v = super().forward(x, t, condition, memory)
        if memory is not None and memory.blocks:
            memory.blocks[-1] = memory.blocks[-1] + 0.1
        return v


class Shared(ToyNetwork):
    """What it remembers of one video is there in the next."""

    kept: Any = None

    def update_cache(self, x: Tensor, t: Tensor, condition: Any, memory: Any) -> None:
        super().update_cache(x, t, condition, memory)
        if self.kept is not None:
            memory.blocks[-1] = memory.blocks[-1] + self.kept
        self.kept = memory.blocks[-1].detach().mean()


class Spoilt(Means):
    def switch(self, recent: Any, update_cache: Any) -> None:
        self.blocks = [block * float("nan") for block in self.blocks]


MEMORIES = {
    Greedy: "a pass has changed what is remembered",
    Shared: "a stream differs from the video made at once",
}


def backbone_with(network: type[ToyNetwork], memory: type[Means] = Means) -> Zoo:
    class Backbone(ToyBackbone):
        def network(self, start: Any) -> Any:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return network()

        def blocks(self, network: Any = None) -> Any:
            return replace(super().blocks(), new_memory=lambda network, x: memory(len(x)))

    zoo = load_zoo(["tests.blocks.plugin"])
    zoo.backbones.add("broken", Backbone, "a broken backbone")
    return zoo


@pytest.mark.parametrize(("network", "said"), MEMORIES.items(), ids=lambda one: str(one)[:40])
def test_a_network_that_breaks_a_promise(network, said):
    with pytest.raises(AssertionError, match=said):
        check_memory("broken", "one", backbone_with(network))


class Wider(WindowMemory):
    """It declares a frame more than its cache shows."""

    def span(self, frames: int) -> Span:
        return Span(self.ring.size + 1, self.ring.sink)


class Overwriting(WindowMemory):
    """Its next block takes the slots of the sink, which it declares as seen."""

    def place(self, cache: KVCache, frames: int) -> Placement:
        placed = super().place(cache, frames)
        own = range(frames) if cache.count >= self.ring.size else placed.slots
        return Placement([*own], placed.used, placed.positions)


@pytest.mark.parametrize("memory", [Wider, Overwriting, WindowMemory])
def test_a_block_sees_what_its_memory_declares(memory):
    zoo = load_zoo(["tests.sizes.plugin"])
    zoo.memories.add("mine", memory, "a window")
    part = {
        "name": "self-forcing",
        "size": "test-small",
        "memory": {"name": "mine", "frames": 9, "sink": 3},
    }
    if memory is WindowMemory:
        check_memory(part, PROMPT, zoo)
        return
    with pytest.raises(AssertionError, match="block 3 of 12 frames does not see what the memory"):
        check_memory(part, PROMPT, zoo)


def test_a_memory_that_breaks_at_a_switch():
    with pytest.raises(AssertionError, match="makes values that are not finite"):
        check_memory("broken", "one", backbone_with(ToyNetwork, Spoilt))
