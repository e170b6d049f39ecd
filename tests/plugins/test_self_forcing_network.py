"""The causal network: the same velocities with a memory, under a mask, and by diffusers' model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from salt_zoo.core.guidance import Guided
from salt_zoo_self_forcing.masks import Span, TokenMask, attend, frame_mask
from tests.plugins.tiny_causal import (
    at,
    network,
    policy,
    prompt,
    relative_error,
    transformer,
    video,
)


@pytest.fixture
def double(monkeypatch):
    """Float64 throughout: diffusers' norms and modulations ask for float32 by `.float()`."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def in_turn(net, x, t, past, past_t, condition):
    """The velocities of all blocks, each with the memory of `past`."""
    memory, found = net.new_memory(x), []
    for block, frames in enumerate(net.partition.split(x.shape[2])):
        found.append(net(x[:, :, frames], at(t[block]), condition, memory))
        net.update_cache(past[:, :, frames], at(past_t[block]), condition, memory)
    return torch.cat(found, dim=2)


def per_frame(net, t, frames):
    sizes = [part.stop - part.start for part in net.partition.split(frames)]
    return torch.cat([torch.full((2, n), t[b]) for b, n in enumerate(sizes)], dim=1)


TIMES = [0.9, 0.3, 0.7, 0.5, 1.0, 0.1, 0.6, 0.8]
WHOLE = [
    ("full", {}),
    ("window", {"frames": 2, "sink": 0}),
    ("window", {"frames": 4, "sink": 0}),
    ("window", {"frames": 5, "sink": 0}),
    ("window", {"frames": 4, "sink": 2}),
    ("window", {"frames": 5, "sink": 1}),
    ("window", {"frames": 6, "sink": 3}),
    ("window", {"frames": 30, "sink": 3}),
]


@pytest.mark.parametrize("first", [None, 1])
@pytest.mark.parametrize(("name", "options"), WHOLE)
def test_block_after_block_is_the_pass_over_all(double, name, options, first):
    net = network(policy(name, **options), first=first).double()
    frames = 10 if first is None else 11
    x, x0 = video(frames).double(), video(frames, 7).double()
    t = per_frame(net, TIMES, frames)
    condition = prompt()
    noisy_past = in_turn(net, x, TIMES, x, TIMES, condition)
    assert relative_error(noisy_past, net(x, t, condition)) < 1e-12
    clean_past = in_turn(net, x, TIMES, x0, [0.0] * 8, condition)
    assert relative_error(clean_past, net.forward_masked(x, t, x0, condition)) < 1e-12
    little = in_turn(net, x, TIMES, x0, [0.1] * 8, condition)
    given = net.forward_masked(x, t, x0, condition, torch.full_like(t, 0.1))
    assert relative_error(little, given) < 1e-12
    sees_past = name == "full" or options["frames"] > 2
    assert (relative_error(clean_past, noisy_past) > 0.01) == sees_past


@pytest.mark.parametrize("name", ["block-relative", "ema-sink"])
def test_relative_positions_are_absolute_ones_while_all_is_seen(double, name):
    net = network(policy(name, frames=6, sink=2)).double()
    x, t = video(6).double(), per_frame(net, TIMES, 6)
    found = in_turn(net, x, TIMES, x, TIMES, prompt())
    assert relative_error(found, net(x, t, prompt())) < 1e-12
    assert net.forward_masked(video(8), at(0.5), video(8), prompt()) is None


def test_a_window_differs_from_the_whole_past():
    x = video(8)
    full, window = (
        in_turn(network(memory), x, TIMES, x, TIMES, prompt())
        for memory in (policy("full"), policy("window", frames=4, sink=0))
    )
    torch.testing.assert_close(full[:, :, :4], window[:, :, :4])
    assert relative_error(window[:, :, 4:], full[:, :, 4:]) > 1e-3


def test_one_block_is_diffusers_own_model():
    x, t, text = video(5), torch.tensor([0.2, 0.9]), prompt()
    wanted = transformer()(x, 1000 * t, text["text"], return_dict=False)[0]
    net = network(frames=None)
    assert relative_error(net(x, t, text), wanted) < 1e-6
    assert relative_error(net(x, t, text, net.new_memory(x)), wanted) < 1e-6


# --- probing ---


def _probe(net, x, condition, memory):
    for t in (0.2, 0.8):
        net(x + 1, at(t), condition, memory)
    with torch.enable_grad():
        net(x - 1, at(0.4), condition, memory)


ALL = [
    ("full", {}),
    ("window", {"frames": 5, "sink": 1}),
    ("block-relative", {"frames": 5, "sink": 1}),
    ("ema-sink", {"frames": 5, "sink": 1, "decay": 0.5}),
]


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(("name", "options"), ALL)
@torch.no_grad()
def test_probing_changes_nothing(name, options, gradient):
    net = network(policy(name, **options), first=1).requires_grad_(gradient)
    x, condition, ends = video(9), prompt(), []
    for probing in (False, True):
        memory, found = net.new_memory(x), []
        for frames in net.partition.split(9):
            part = x[:, :, frames]
            if probing:
                _probe(net, part, condition, memory)
            found.append(net(part, at(0.9), condition, memory))
            if probing:
                _probe(net, part, condition, memory)
                assert memory.count == frames.start
            found.append(net(part, at(0.5), condition, memory))
            net.update_cache(part, at(0.0), condition, memory)
        ends.append((found, memory))
    for one, other in zip(ends[0][0], ends[1][0], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(ends[0][1].keys, ends[1][1].keys, strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_nothing_is_evicted_before_a_commit():
    net = network(policy("window", frames=4, sink=0))
    x, condition = video(8), prompt()
    memory = net.new_memory(x)
    for start in (0, 2):
        net.update_cache(x[:, :, start : start + 2], at(0.0), condition, memory)
    kept = memory.keys[0].clone()
    n = memory.shape.tokens
    _probe(net, x[:, :, 4:6], condition, memory)
    # the block that is probed sees frames 2 and 3, which lie in the last two slots
    assert torch.equal(memory.keys[0][:, 2 * n :], kept[:, 2 * n :])
    assert memory.count == 4


# --- the prompt ---


def count_prompt_keys(net):
    calls = []
    for block in net.transformer.blocks:
        block.attn2.to_k.register_forward_hook(lambda *args: calls.append(1))
    return calls


@torch.no_grad()
def test_a_prompts_keys_are_computed_once():
    net = network()
    calls, layers = count_prompt_keys(net), len(net.transformer.blocks)
    x, one, two = video(8), prompt(2), prompt(3)
    memory = net.new_memory(x)
    for start in (0, 2, 4):
        part = x[:, :, start : start + 2]
        for t in (0.9, 0.5):
            net(part, at(t), one, memory)
        net.update_cache(part, at(0.0), one, memory)
    assert len(calls) == layers
    found = net(x[:, :, 6:], at(0.5), two, memory)
    again = net(x[:, :, 6:], at(0.5), two, memory)
    assert len(calls) == 2 * layers
    assert torch.equal(found, again)
    with torch.enable_grad():  # never from the cache
        fresh = net(x[:, :, 6:], at(0.5), two, memory)
    assert len(calls) == 3 * layers
    assert torch.equal(found, fresh)
    assert not torch.equal(found, net(x[:, :, 6:], at(0.5), one, memory))


def test_with_gradient_the_prompts_keys_are_in_the_graph():
    net = network()
    x, condition = video(4), prompt()
    memory = net.new_memory(x)
    net.update_cache(x[:, :, :2], at(0.0), condition, memory)  # they are cached now
    net.requires_grad_()
    net(x[:, :, 2:], at(0.5), condition, memory).square().mean().backward()
    for block in net.transformer.blocks:
        for weight in (block.attn2.to_k.weight, block.attn2.to_v.weight):
            assert weight.grad is not None
            assert weight.grad.norm() > 0


@pytest.mark.parametrize(("name", "options"), ALL)
@torch.no_grad()
def test_guidance_is_two_runs(double, name, options):
    net = network(policy(name, **options)).double()
    x, one, nothing = video(8).double(), prompt(2), prompt(3)
    guided = Guided(net, nothing, 3.0)
    memory = guided.inner_memory(lambda network, x: network.new_memory(x), x)
    memories = [net.new_memory(x) for _ in range(2)]
    for start in (0, 2, 4, 6):
        part = x[:, :, start : start + 2]
        found = guided(part, at(0.7), one, memory)
        without, given = (
            net(part, at(0.7), text, its)
            for text, its in zip((nothing, one), memories, strict=True)
        )
        assert relative_error(found, without + 3.0 * (given - without)) < 1e-12
        guided.update_cache(part, at(0.0), one, memory)
        for text, its in zip((nothing, one), memories, strict=True):
            net.update_cache(part, at(0.0), text, its)
    assert memory.bytes() == sum(its.bytes() for its in memories)


# --- masks ---


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("span", [Span(), Span(4, 0), Span(5, 1)])
@pytest.mark.parametrize("clean_copy", [False, True])
def test_flex_attention_sees_what_the_dense_mask_shows(span, clean_copy):
    blocks = [slice(0, 1), slice(1, 3), slice(3, 5), slice(5, 7)]
    mask = TokenMask(frame_mask(blocks, span, clean_copy), 3)
    tokens = 3 * mask.frames.shape[0]
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, tokens, 2, 8, generator=generator)
    wanted = attend(q, k, v, mask)
    sides = (one.transpose(1, 2) for one in (q, k, v))
    found = flex_attention(*sides, block_mask=mask.blocks).transpose(1, 2)
    torch.testing.assert_close(found, wanted)


def test_a_copied_network_has_passes_of_its_own():
    net = network()
    twin = copy.deepcopy(net)
    x, memory = video(4), net.new_memory(video(4))
    net.update_cache(x[:, :, :2], at(0.0), prompt(), memory)
    other = twin.new_memory(x)
    twin.update_cache(x[:, :, :2], at(0.0), prompt(), other)
    found, wanted = (
        one(x[:, :, 2:], at(0.5), prompt(), its) for one, its in ((net, memory), (twin, other))
    )
    assert torch.equal(found, wanted)
