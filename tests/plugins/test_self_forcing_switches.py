"""What memories do when the prompt changes."""

from __future__ import annotations

import pytest
import torch

from tests.plugins.tiny_causal import at, network, policy, prompt, video

RECACHING = [
    ("full", {"on_switch": "recache"}),
    ("window", {"frames": 6, "sink": 2}),
    ("window", {"frames": 7, "sink": 0}),
    ("ema-sink", {"frames": 6, "sink": 2, "decay": 0.5}),
]


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
@pytest.mark.parametrize(("name", "options"), RECACHING)
@torch.no_grad()
def test_a_recache_is_a_fresh_memory_of_the_last_frames(name, options, blocks):
    net = network(policy(name, **options))
    x, old, new = video(2 * blocks + 2), prompt(2), prompt(3)
    parts = [x[:, :, frames] for frames in net.partition.split(2 * blocks)]
    memory = net.new_memory(x)
    for part in parts:
        net.update_cache(part, at(0.0), old, memory)

    def update_cache(part):
        net.update_cache(part, at(0.0), new, memory)

    memory.switch(parts, update_cache)
    fresh = net.new_memory(x)
    kept = parts if name == "full" else parts[-3:]
    fresh.reset(2 * (blocks - len(kept)))
    for part in kept:
        net.update_cache(part, at(0.0), new, fresh)
    found, wanted = (net(x[:, :, -2:], at(0.5), new, one) for one in (memory, fresh))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", ["full", "window", "ema-sink", "block-relative"])
@torch.no_grad()
def test_keeping_changes_nothing_but_the_prompt(name):
    net = network(policy(name, on_switch="keep"))
    x, old, new = video(6), prompt(2), prompt(3)
    found = []
    for switching in (False, True):
        memory = net.new_memory(x)
        for start in (0, 2):
            net.update_cache(x[:, :, start : start + 2], at(0.0), old, memory)
        if switching:
            memory.switch([x[:, :, :2], x[:, :, 2:4]], lambda part: pytest.fail("nothing to do"))
        found.append(net(x[:, :, 4:], at(0.5), new, memory))
    assert torch.equal(*found)
