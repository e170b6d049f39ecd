"""Streams: the same video as offline, block by block, with prompts that change on the way."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from salt_zoo.core import flow
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.rollout.sampler import block_noise, full_time, renoise_from
from salt_zoo.rollout.stream import Timeline, stream

SEVEN, THREE = "a 7 moving up-left slowly", "a 3 moving right quickly"
RNG = KeyedRNG(5, ("sample",), range(2))
TWO = SamplingConfig(steps=2)
WINDOW = {"name": "window", "frames": 6, "sink": 0}
WINDOWS = {
    "window": WINDOW,
    "sink": {"name": "window", "frames": 7, "sink": 3},
    "int8": {"name": "window-int8", "frames": 7, "sink": 3},
    "block-relative": {"name": "block-relative", "frames": 7, "sink": 1},
    "ema-sink": {"name": "ema-sink", "frames": 7, "sink": 2, "decay": 0.5},
}
MEMORIES = {"full": {"name": "full"}, **WINDOWS}


@pytest.fixture(scope="module")
def sizes():
    return load_zoo(["tests.sizes.plugin"])


@pytest.fixture
def make(sizes):
    """Makes the backbone `self-forcing` with random weights of two blocks, and its student."""

    def make(memory, **options):
        content = {"size": "test-small", "memory": memory}
        config = sizes.backbones.configure("self-forcing", content | options, "test")
        backbone = sizes.backbones.create("self-forcing", config, sizes)
        return backbone.network("student").eval(), backbone

    return make


def joined(parts):
    return torch.cat(list(parts), dim=2)


def first(parts, count):
    return joined(itertools.islice(parts, count))


# --- the same as offline ---


def offline(network, backbone, config, blocks):
    frames = Timeline.of(backbone, network).latents(blocks)
    latents = generate(network, backbone, [SEVEN] * 2, RNG, config, frames=frames)
    return backbone.decode_video(latents)


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
@pytest.mark.parametrize(
    "config",
    [TWO, SamplingConfig(steps=2, sampler="ode"), SamplingConfig(steps=1, guidance_scale=2.0)],
    ids=["sde", "ode", "guided"],
)
def test_a_stream_is_bitwise_the_offline_video(memory, config, make):
    network, backbone = make(memory)
    parts = list(stream(network, backbone, SEVEN, RNG, config, blocks=4))
    assert [part.shape for part in parts] == [(2, 1, 3, 16, 16)] * 4
    assert torch.equal(joined(parts), offline(network, backbone, config, 4))


@pytest.mark.parametrize("memory", WINDOWS.values(), ids=WINDOWS)
def test_without_an_end_too(memory, make):
    network, backbone = make(memory)
    endless = first(stream(network, backbone, SEVEN, RNG, TWO), 5)
    assert torch.equal(endless, offline(network, backbone, TWO, 5))


@pytest.mark.parametrize("memory", [{"name": "full"}, WINDOW], ids=["full", "window"])
def test_a_first_frame_of_its_own_and_a_noisy_context(memory, make):
    options = {"block_frames": 2, "independent_first_frame": True, "context_noise": 0.1}
    network, backbone = make(memory, **options)
    parts = list(stream(network, backbone, SEVEN, RNG, TWO, blocks=4))
    assert [part.shape[2] for part in parts] == [1, 2, 2, 2]
    assert torch.equal(joined(parts), offline(network, backbone, TWO, 4))


def test_the_seed_decides_all(make):
    network, backbone = make(WINDOW)

    def video(seed, prompt=SEVEN):
        rng = replace(RNG, seed=seed)
        return first(stream(network, backbone, prompt, rng, TWO), 2)

    assert torch.equal(video(1), video(1))
    assert not torch.equal(video(1), video(2)) and not torch.equal(video(1), video(1, THREE))


def test_fifty_blocks_take_no_more_memory_than_two(make):
    network, backbone = make(WINDOW)
    made = stream(network, backbone, SEVEN, RNG, SamplingConfig(steps=1), switches={30: THREE})
    sizes = set()
    for part in itertools.islice(made, 50):
        assert part.isfinite().all()
        sizes.add(made.statistics.memory_bytes)
    assert len(sizes) == 1 and made.statistics.frames == 150
    cache = made.memory
    (expected,) = sizes
    assert expected == cache.bytes() and len(cache.keys) == 2 and cache.slots == 6


# --- the caller's state ---


def test_inference_mode_is_off_between_blocks(make):
    network, backbone = make(WINDOW)
    made = stream(network, backbone, SEVEN, RNG, TWO)
    assert not torch.is_inference_mode_enabled()
    for part in itertools.islice(made, 2):
        assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
        assert part.is_inference() and not part.requires_grad
    assert (torch.ones(1, requires_grad=True) * 2).requires_grad


def test_statistics(make):
    network, backbone = make(WINDOW)
    made = stream(network, backbone, SEVEN, RNG, TWO)
    costs = made.statistics
    assert costs.frames == 0 and costs.first_block_seconds == 0 and math.isnan(costs.whole_rate)
    next(made)
    latency = costs.first_block_seconds
    assert latency > 0 and costs.whole_rate == pytest.approx(3 / latency)
    for _ in range(3):
        next(made)
    assert costs.first_block_seconds == latency and costs.frames == 12
    assert costs.later.frames == 9 and costs.denoising_rate >= costs.whole_rate > 0
    assert costs.memory_bytes == made.memory.bytes() > 0


# --- prompts that change ---


def by_hand(network, backbone, prompts, recached):
    """Four blocks under a window of two, written down without the library's walk.

    `prompts` by block; where it changes the last two blocks are remembered anew if `recached`.
    """
    blocks, shape = backbone.blocks(), backbone.latent_shape
    conditions = {p: backbone.encode_prompts([p] * 2) for p in prompts}
    memory = network.new_memory(block_noise(RNG, blocks, shape, 0))
    renoise, made = renoise_from(RNG, blocks, shape), []
    high, low = flow.step_list(2, 5.0)
    for block, prompt in enumerate(prompts):
        x = block_noise(RNG, blocks, shape, block)
        clean, condition = full_time(0.0, x), conditions[prompt]
        if made:
            network.update_cache(made[-1], clean, conditions[prompts[block - 1]], memory)
            if prompt != prompts[block - 1] and recached:
                memory.reset(3 * (block - len(made[-2:])))
                for x0 in made[-2:]:
                    network.update_cache(x0, clean, condition, memory)
        x0 = x - high * network(x, full_time(high, x), condition, memory)
        x = flow.add_noise(x0, renoise(block, low), low)
        made.append(x - low * network(x, full_time(low, x), condition, memory))
    return backbone.decode_video(joined(made))


@pytest.mark.parametrize("on_switch", ["recache", "keep"])
@pytest.mark.parametrize("block", [1, 3])
def test_a_switch_is_what_is_written_by_hand(block, on_switch, make):
    network, backbone = make(WINDOW | {"on_switch": on_switch})
    with torch.inference_mode():
        prompts = [SEVEN] * block + [THREE] * (4 - block)
        wanted = by_hand(network, backbone, prompts, on_switch == "recache")
    made = stream(network, backbone, SEVEN, RNG, TWO, switches={3 * block: THREE}, blocks=4)
    assert torch.equal(joined(made), wanted)


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)
def test_a_switch_acts_from_the_block_on_that_has_the_frame(memory, make):
    network, backbone = make(memory)

    def video(**switches):
        return joined(stream(network, backbone, SEVEN, RNG, TWO, blocks=4, **switches))

    plain, switched = video(), video(switches={6: THREE})
    assert torch.equal(plain[:, :, :6], switched[:, :, :6])
    assert not torch.equal(plain[:, :, 6:9], switched[:, :, 6:9])
    assert torch.equal(switched, video(switches={8: THREE}))
    assert not torch.equal(switched, video(switches={9: THREE}))
    assert torch.equal(switched, video(switches={6: SEVEN, 7: THREE}))


def test_prompts_change_more_than_once(make):
    network, backbone = make(WINDOW)
    with torch.inference_mode():
        wanted = by_hand(network, backbone, [SEVEN, THREE, THREE, SEVEN], recached=True)
    switches = {9: SEVEN, 4: THREE}
    made = stream(network, backbone, SEVEN, RNG, TWO, switches=switches, blocks=4)
    assert torch.equal(joined(made), wanted)


@pytest.mark.parametrize(
    ("memory", "writes", "count"),
    [
        ({"name": "full"}, 3, 9),
        ({"name": "full", "on_switch": "recache"}, 6, 9),
        (WINDOW, 5, 6),
        (WINDOW | {"on_switch": "keep"}, 3, 9),
        ({"name": "ema-sink", "frames": 6, "sink": 1}, 5, 6),
        ({"name": "block-relative", "frames": 6}, 3, 3),  # flush
        ({"name": "block-relative", "frames": 6, "on_switch": "cut"}, 3, 9),
    ],
)
def test_what_the_memory_does_at_a_switch(memory, writes, count, make, monkeypatch):
    """Passes that write, and frames in the memory, after a switch before the fourth block."""
    network, backbone = make(memory)
    written, update_cache = [], network.update_cache

    def spy(x, t, condition, memory):
        written.append(condition)
        update_cache(x, t, condition, memory)

    monkeypatch.setattr(network, "update_cache", spy)
    made = stream(network, backbone, SEVEN, RNG, TWO, switches={9: THREE}, blocks=4)
    list(made)
    assert len(written) == writes and made.memory.count == count
    assert len({id(condition) for condition in written}) == (1 if writes == 3 else 2)
    if memory.get("on_switch") == "cut":
        assert made.memory.cuts == [9]


# --- what is refused, at once ---


def test_a_stream_without_end_needs_a_window(make):
    network, backbone = make({"name": "full"})
    with pytest.raises(ZooError, match=r"choose backbone\.memory=window.*or set the stream"):
        stream(network, backbone, SEVEN, RNG, TWO)


def test_a_bidirectional_network_is_refused(make, zoo, teacher):
    _, causal = make(WINDOW)
    config = zoo.backbones.configure("wan", {"options": {"weights": str(teacher)}}, "test")
    wan = zoo.backbones.create("wan", config, zoo)
    for backbone in (causal, wan):
        with pytest.raises(ZooError, match=r"denoise all frames jointly.*self-forcing"):
            stream(backbone.network("teacher"), backbone, SEVEN, RNG, TWO)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({0: THREE}, "frame 0: the first prompt covers the whole first block; .* is 3"),
        ({-3: THREE}, "frame -3"),
        ({2: THREE}, "frame 2: the first prompt"),
        ({12: THREE}, "frame 12: the stream has 12 frames, the last is 11"),
        ({6: "a dog"}, "'a dog'"),
        ({6: "a 3 moving rihgt quickly"}, "did you mean 'right'"),
    ],
)
def test_a_wrong_switch_is_told_before_anything_is_made(switches, message, make, monkeypatch):
    network, backbone = make(WINDOW)
    monkeypatch.setattr(network, "forward", None)
    with pytest.raises(ZooError, match=message):
        stream(network, backbone, SEVEN, RNG, TWO, switches=switches, blocks=4)


def test_a_wrong_prompt_is_told_before_anything_is_made(make, monkeypatch):
    network, backbone = make(WINDOW)
    monkeypatch.setattr(network, "forward", None)
    with pytest.raises(ZooError, match="'a dog'"):
        stream(network, backbone, "a dog", RNG, TWO)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(make):
    network, backbone = make(WINDOW)
    network, backbone = network.to("cuda"), backbone.to("cuda")
    rng = replace(RNG, device="cuda")
    made = stream(network, backbone, SEVEN, rng, TWO, switches={6: THREE}, blocks=4)
    parts = list(made)
    costs = made.statistics
    assert costs.denoising_rate >= costs.whole_rate > 0 and costs.first_block_seconds > 0
    latents = generate(network, backbone, [SEVEN] * 2, rng, TWO, frames=6)
    assert torch.equal(joined(parts[:2]), backbone.decode_video(latents))
