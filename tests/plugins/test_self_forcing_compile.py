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


def test_a_compiled_network_generates_the_same_and_is_compiled_once():
    """For all memories, each of which is seen by the attention alone, which stays as it is."""
    from torch._dynamo.testing import CompileCounter

    def remembering(memory):
        net.policy = policy(memory, **OPTIONS[memory])
        net._known.clear()  # whole videos' masks are the memory's, too
        return net

    def whole(net):
        return net(video(4), at(0.5), prompt())

    torch.compiler.reset()
    net = network()
    wanted = {memory: generated(remembering(memory)) for memory in MEMORIES}
    masked = {memory: whole(remembering(memory)) for memory in MEMORIES}
    counter = CompileCounter()
    net.compile(backend=counter)
    with torch._dynamo.config.patch(recompile_limit=1000):  # else it would soon give up, uncounted
        assert torch.allclose(generated(remembering("full")), wanted["full"], atol=1e-5)
        compiled = counter.frame_count
        assert compiled > 0
        for memory in MEMORIES:
            assert torch.allclose(generated(remembering(memory)), wanted[memory], atol=1e-5), memory
            assert counter.frame_count == compiled, memory
    for memory in MEMORIES:
        assert torch.allclose(whole(remembering(memory)), masked[memory], atol=1e-5), memory
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
