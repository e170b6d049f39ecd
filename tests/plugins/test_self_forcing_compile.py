"""What torch makes of a causal network: compiled, in inference mode before training, in bf16."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.rollout.sampler import initial_noise, renoise_from, rollout
from tests.plugins.tiny_causal import CHANNELS, MEMORIES, SIZE, at, network, policy, prompt, video

OPTIONS = {
    "full": {},
    "window": {"frames": 4, "sink": 1},
    "window-int8": {"frames": 4, "sink": 1},
    "block-relative": {"frames": 4, "sink": 1},
    "ema-sink": {"frames": 5, "sink": 1, "decay": 0.5},
}


def generated(net):
    shape, blocks = (CHANNELS, 10, SIZE, SIZE), net.partition
    rng = KeyedRNG(0, (), range(2))
    noise, renoise = initial_noise(rng, blocks, shape), renoise_from(rng, blocks, shape)
    with torch.inference_mode():
        return rollout(net, noise, prompt(), [1.0, 0.6], blocks=blocks, renoise=renoise)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_compiled_network_generates_the_same_and_is_compiled_once(memory):
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    net = network(policy(memory, **OPTIONS[memory]))
    wanted, whole = generated(net), net(video(4), at(0.5), prompt())
    counter = CompileCounter()
    net.compile(backend=counter)
    assert torch.allclose(generated(net), wanted, atol=1e-5)
    compiled = counter.frame_count
    assert compiled > 0
    assert torch.allclose(generated(net), wanted, atol=1e-5)
    assert counter.frame_count == compiled
    assert torch.allclose(net(video(4), at(0.5), prompt()), whole, atol=1e-5)
    torch.compiler.reset()


@pytest.mark.parametrize("memory", MEMORIES)
def test_autocast_generates_in_bf16_what_float32_does_roughly(memory):
    net = network(policy(memory, **OPTIONS[memory]))
    wanted = generated(net)
    with torch.autocast("cpu", torch.bfloat16):
        made = generated(net)
    assert made.shape == wanted.shape
    assert (made.float() - wanted).norm() < 0.1 * wanted.norm()


def test_masks_and_positions_made_in_inference_mode_serve_training():
    net = network().requires_grad_(True)
    with torch.inference_mode():
        net(video(4), at(0.5), prompt())
        net.forward_masked(video(4), at(0.5), video(4, seed=3), prompt())
    net(video(4), at(0.5), prompt()).square().mean().backward()
    net.forward_masked(video(4), at(0.5), video(4, seed=3), prompt()).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
