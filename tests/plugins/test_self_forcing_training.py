"""Gradients of the causal network: none through the memory, recomputed, and block by block."""

from __future__ import annotations

import gc

import pytest
import torch

from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.rollout.sampler import iter_rollout, renoise_from, replay
from tests.plugins.tiny_causal import (
    CHANNELS,
    SIZE,
    at,
    network,
    policy,
    prompt,
    relative_error,
    video,
)

TIMES = flow.step_list(3, 5.0)
MEMORIES = [
    ("full", {}),
    ("window", {"frames": 5, "sink": 1}),
    ("block-relative", {"frames": 5, "sink": 1}),
    ("ema-sink", {"frames": 5, "sink": 1, "decay": 0.5}),
]


def renoise(net, frames):
    rng = KeyedRNG(3, rows=range(2))
    return renoise_from(rng, net.partition, (CHANNELS, frames, SIZE, SIZE))


def exits(net, x, gradient=False):
    return iter_rollout(
        net,
        x,
        prompt(),
        TIMES,
        blocks=net.partition,
        renoise=renoise(net, x.shape[2]),
        exit_step=1,
        gradient=gradient,
    )


def gradients(net):
    found = torch.cat([one.grad.flatten() for one in net.parameters() if one.grad is not None])
    net.zero_grad()
    return found


def whole(net, x):
    """One backward over all blocks."""
    made = torch.cat([exit.x0 for exit in exits(net, x, gradient=True)], dim=2)
    (made * video(x.shape[2], 9).to(x)).sum().backward()
    return gradients(net)


def one_by_one(net, x, probe=False):
    """A backward for each block, after all were made without gradient."""
    done = list(exits(net, x))
    mark = video(x.shape[2], 9).to(x)
    for exit in replay(net, done, net.partition, renoise(net, x.shape[2])):
        if probe:
            with torch.no_grad():
                net(exit.x + 1, at(0.3), exit.condition, exit.memory)
        (exit.x0 * mark[:, :, exit.frames]).sum().backward()
    return gradients(net)


@pytest.fixture(params=MEMORIES, ids=[name for name, _ in MEMORIES])
def net(request):
    name, options = request.param
    return network(policy(name, **options), first=1).requires_grad_()


def test_no_gradient_into_the_memory(net):
    x = video(9).requires_grad_()
    for exit in exits(net, x, gradient=True):
        buffers = [*exit.memory.keys, *exit.memory.values]
        buffers += [one for layer in exit.memory.cross.values() for pair in layer for one in pair]
        assert not any(buffer.requires_grad for buffer in buffers)
    memory = net.new_memory(x)
    net.update_cache(x[:, :, :1], at(0.0), prompt(), memory)
    (found,) = torch.autograd.grad(net(x[:, :, 1:3], at(0.5), prompt(), memory).sum(), x)
    assert found[:, :, 1:3].norm() > 0
    assert found[:, :, [0, *range(3, 9)]].norm() == 0


def test_a_masked_pass_has_a_gradient_through_the_clean_past():
    net, x = network(policy("full")), video(4)
    x0 = video(4, 5).requires_grad_()
    v = net.forward_masked(x, at(0.5), x0, prompt())
    (found,) = torch.autograd.grad(v.sum(), x0)
    assert found[:, :, :2].norm() > 0
    assert found[:, :, 2:].norm() == 0  # nothing comes after the last block


def test_replay_has_the_gradient_of_the_whole_video(net, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # diffusers asks for float32
    net.double()
    x = video(9).double()
    assert relative_error(one_by_one(net, x), whole(net, x)) < 1e-12


def test_checkpointing_changes_no_gradient(net):
    x = video(9)
    wanted = one_by_one(net, x)
    net.enable_gradient_checkpointing()
    net.train()
    assert relative_error(one_by_one(net, x), wanted) < 1e-6
    assert relative_error(one_by_one(net, x, probe=True), wanted) < 1e-6


def test_checkpointing_a_masked_pass_changes_no_gradient():
    net = network(policy("window", frames=5, sink=1), first=1).requires_grad_()
    found = []
    for _ in range(2):
        net.forward_masked(video(5), at(0.5), video(5, 5), prompt()).square().sum().backward()
        found.append(gradients(net))
        net.enable_gradient_checkpointing()
        net.train()
    assert relative_error(found[1], found[0]) < 1e-6


def test_backward_after_a_commit_is_refused_where_it_would_be_wrong(net):
    net.enable_gradient_checkpointing()
    net.train()
    x, condition = video(3), prompt()
    memory = net.new_memory(x)
    v = net(x[:, :, :1], at(0.5), condition, memory)
    net.update_cache(x[:, :, :1], at(0.0), condition, memory)
    with pytest.raises(RuntimeError, match="call backward before the next block is written"):
        v.sum().backward()


def test_without_checkpointing_a_commit_changes_no_graph(net):
    found = []
    for late in (False, True):
        x, condition = video(7), prompt()
        memory, losses = net.new_memory(x), []
        for frames in net.partition.split(7):
            losses.append(net(x[:, :, frames], at(0.5), condition, memory).square().sum())
            if not late:
                losses.pop().backward()
            net.update_cache(x[:, :, frames], at(0.0), condition, memory)
        for loss in losses:
            loss.backward()
        found.append(gradients(net))
    assert relative_error(found[1], found[0]) < 1e-6


# --- memory of training ---


class Saved:
    """Bytes that autograd holds for backward, and the most that it held."""

    def __init__(self):
        self.now = self.most = 0

    def keep(self, tensor):
        return Held(self, tensor)

    def hooks(self):
        return torch.autograd.graph.saved_tensors_hooks(self.keep, lambda held: held.tensor)


class Held:
    def __init__(self, saved, tensor):
        self.saved, self.tensor, self.bytes = saved, tensor, tensor.numel() * tensor.element_size()
        saved.now += self.bytes
        saved.most = max(saved.most, saved.now)

    def __del__(self):
        self.saved.now -= self.bytes


def most_saved(run, net, frames):
    gc.collect()
    saved = Saved()
    with saved.hooks():
        run(net, video(frames))
    return saved.most


def test_replay_holds_one_blocks_graph_however_long_the_video():
    net = network(policy("window", frames=4, sink=0)).requires_grad_()
    short, long = (most_saved(one_by_one, net, frames) for frames in (6, 24))
    assert long == short > 0
    assert most_saved(whole, net, 24) > 3 * most_saved(whole, net, 6)


# --- longer videos ---


@pytest.mark.parametrize("memory", ["full", "window", "block-relative", "ema-sink"])
@pytest.mark.parametrize("first", [False, True])
def test_a_longer_video_begins_as_a_shorter_one(zoo, teacher, memory, first):
    window = {} if memory == "full" else {"frames": 6, "sink": 1}
    content = {
        "size": "digits",
        "options": {"weights": str(teacher)},
        "memory": {"name": memory, **window},
        "block_frames": 2 if first else 3,
        "independent_first_frame": first,
        "context_noise": 0.1,
    }
    config = zoo.backbones.configure("self-forcing", content, "test")
    backbone = zoo.backbones.create("self-forcing", config, zoo)
    net = backbone.network("student").eval()
    prompts = ["a 7 moving up-left slowly", "a 3 moving right quickly"]
    rng = KeyedRNG(5, ("sample",), range(2))
    short, long = (
        generate(net, backbone, prompts, rng, SamplingConfig(steps=2), frames=frames)
        for frames in ((3, 11) if first else (3, 12))
    )
    assert torch.equal(long[:, :, :3], short)
