"""Streams of any backbone: a toy with a memory of its own and a decoder with a state."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import pytest
import torch

from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.rollout.stream import Timeline, stream
from tests.blocks.plugin import Means, ToyBackbone

RNG = KeyedRNG(5, ("sample",), range(2))
TWO = SamplingConfig(steps=2)


@dataclass
class Recording(Means):
    """Notes what it is handed at a switch and remembers all of it anew."""

    handed: list = field(default_factory=list)

    def switch(self, recent, update_cache):
        self.handed.append(list(recent))
        self.blocks.clear()
        for x0 in recent:
            update_cache(x0)


class DecodedToy(ToyBackbone):
    """The first latent frame is one frame, the others are two, and each is added to the last."""

    slots, noise = None, 0.0

    def blocks(self, network=None):
        def memory(network, x):
            return Recording(len(x), slots=self.slots)

        return replace(super().blocks(), new_memory=memory, context_noise=self.noise)

    def pixel_frames(self, frames):
        return max(0, 2 * frames - 1)

    def frame_decoder(self):
        seen = []

        def decode(latents):
            pixels = latents.repeat_interleave(2, dim=2)[:, :, 0 if seen else 1 :]
            seen.append(latents)
            return pixels + len(seen)

        return decode


@pytest.fixture
def toy():
    return DecodedToy(None, None)


def test_frames_are_counted_after_decoding(toy):
    network = toy.network("student")
    made = stream(network, toy, "one", RNG, TWO, switches={10: "two"}, blocks=4)
    parts = list(made)
    assert [part.shape[2] for part in parts] == [3, 4, 4, 4] and made.statistics.frames == 15
    plain = list(stream(network, toy, "one", RNG, TWO, blocks=4))
    same = [torch.equal(a, b) for a, b in zip(parts, plain, strict=True)]
    assert same == [True, True, False, False]
    latents = generate(network, toy, ["one"] * 2, RNG, TWO, frames=8)
    assert torch.equal(plain[3], latents[:, :, 6:].repeat_interleave(2, dim=2) + 4)


def test_the_timeline(toy):
    timeline = Timeline.of(toy)
    assert [timeline.latents(n) for n in range(3)] == [0, 2, 4]
    assert [timeline.pixels(n) for n in range(4)] == [0, 3, 7, 11]
    assert [timeline.count(n) for n in (1, 3, 4, 7, 8)] == [1, 1, 2, 2, 3]
    assert timeline.places({3: "a", 6: "b", 7: "c"}, None) == {1: "b", 2: "c"}


@pytest.mark.parametrize(("slots", "handed"), [(None, 5), (2, 1), (3, 2), (4, 2), (100, 5)])
def test_a_switch_is_handed_the_recent_clean_blocks(slots, handed, toy):
    toy.slots = slots
    made = stream(toy.network("student"), toy, "one", RNG, TWO, switches={19: "two"})
    list(itertools.islice(made, 6))
    (recent,) = made.memory.handed
    latents = generate(toy.network("student"), toy, ["one"] * 2, RNG, TWO, frames=10)
    assert torch.equal(torch.cat(recent, dim=2), latents[:, :, 10 - 2 * handed :])


def test_what_is_remembered_anew_is_noised_as_it_was(toy, monkeypatch):
    toy.noise = 0.25
    network, written = toy.network("student"), []
    update_cache = network.update_cache

    def spy(x, t, condition, memory):
        written.append((x, float(t[0]), int(condition["which"].argmax())))
        update_cache(x, t, condition, memory)

    monkeypatch.setattr(network, "update_cache", spy)
    made = stream(network, toy, "one", RNG, TWO, switches={7: "two"})
    list(itertools.islice(made, 3))
    assert [(t, which) for _, t, which in written] == [(0.25, 1)] * 2 + [(0.25, 2)] * 2
    assert all(torch.equal(written[i][0], written[i + 2][0]) for i in range(2))


def test_a_block_is_remembered_when_the_next_is_asked_for(toy):
    network = toy.network("student")
    made = stream(network, toy, "one", RNG, TWO)
    assert network.calls == []
    for number in range(3):
        next(made)
        assert [call[0] for call in network.calls].count("update_cache") == number
        assert len(made.memory.blocks) == number
