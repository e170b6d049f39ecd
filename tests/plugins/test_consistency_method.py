"""Consistency distillation: its distance, its target, blocks on clean context, passes."""

from __future__ import annotations

import math

import pytest
import torch

from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.plugin.manager import load_zoo
from salt_zoo_consistency.losses import distance
from salt_zoo_consistency.method import ConsistencyConfig, ConsistencyDistillation
from tests.blocks.plugin import BLOCK, Means, ToyBackbone

ROWS, W = 3, 3.0
RNG = KeyedRNG(0, rows=range(ROWS))


def test_squared_distance_is_a_mean():
    x, y = RNG.randn((2, 3, 4, 4), "x"), RNG.randn((2, 3, 4, 4), "y")
    torch.testing.assert_close(distance(x, y, "squared"), (x - y).square().mean())


def test_pseudo_huber_is_squared_near_and_linear_far():
    zero, one = torch.zeros(1, 2, 3, 4, 4), torch.ones(1, 2, 3, 4, 4)
    c = 0.00054 * math.sqrt(96)
    near, far = 1e-5, 1e3
    torch.testing.assert_close(
        distance(near * one.double(), zero, "pseudo-huber").item(),
        96 * near**2 / (2 * c),
        rtol=1e-3,
        atol=0,
    )
    assert distance(far * one, zero, "pseudo-huber").item() == pytest.approx(far * math.sqrt(96))
    assert distance(zero, zero, "pseudo-huber").item() == pytest.approx(0, abs=1e-8)


def test_the_grid_falls_from_noise_to_data():
    grid = ConsistencyDistillation(ConsistencyConfig(), None).grid
    assert len(grid) == 49
    assert grid[0] == 1 and grid[-1] == 0
    assert (grid[1:] < grid[:-1]).all()
    torch.testing.assert_close(grid[12], torch.tensor(0.9375))


def turn_of(toy, networks, blocks, handed):
    return TrainStep(
        role="student",
        index=0,
        networks=networks,
        batch=Batch(
            ["one", "two", "one"],
            toy.encode_prompts(["one", "two", "one"]),
            toy.encode_prompts([""] * ROWS),
            RNG.randn(toy.latent_shape, "video"),
        ),
        rng=RNG,
        blocks=blocks,
        latent_shape=toy.latent_shape,
        backward=handed.append,
    )


@pytest.mark.parametrize("causal", [True, False])
def test_loss_is_its_formula(causal):
    """Every block on the clean past, one interval a video and block, guided teacher step."""
    toy = ToyBackbone(None, None)
    networks = {}
    for seed, role in enumerate(("student", "target", "teacher")):
        torch.manual_seed(seed)
        networks[role] = type(toy.network("student"))()
    student, target, teacher = networks.values()
    blocks = toy.blocks() if causal else Blocks()
    handed: list[torch.Tensor] = []
    step = turn_of(toy, networks, blocks, handed)
    method = ConsistencyDistillation(ConsistencyConfig(intervals=6, guidance_scale=W), None)
    total = method.train(step)["loss"]

    video, noise = step.batch.x0, RNG.randn(toy.latent_shape, "noise")
    condition, nothing = step.batch.condition, step.batch.unconditional
    parts = blocks.split(6)
    wanted = []
    for number, frames in enumerate(parts):

        def under(network, told, number=number):
            """The memory of the clean blocks before this one."""
            if not causal:
                return None
            with torch.no_grad():
                clean = [video[:, :, part].mean(dim=(2, 3, 4)) for part in parts[:number]]
                return Means(ROWS, [network.write(block) for block in clean])

        k = torch.tensor(RNG.randint(6, "interval", number))
        t, s = (flow.shift_time((6 - index) / 6, 5.0) for index in (k, k + 1))
        wide = [time[:, None, None, None, None] for time in (t, s)]
        x = (1 - wide[0]) * video[:, :, frames] + wide[0] * noise[:, :, frames]
        cond = teacher(x, t, condition, under(teacher, condition))
        uncond = teacher(x, t, nothing, under(teacher, nothing))
        y = x - (wide[0] - wide[1]) * (uncond + W * (cond - uncond))
        goal = y - wide[1] * target(y, s, condition, under(target, condition))
        found = x - wide[0] * student(x, t, condition, under(student, condition))
        wanted.append((found - goal.detach()).square().mean() / len(parts))
    assert len(handed) == len(parts)  # block by block, so that no graph outlives its block
    for one, other in zip(handed, wanted, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(total, sum(wanted).detach())
    sum(handed).backward()
    assert student.mix.weight.grad is not None
    assert student.write.weight.grad is None  # no gradient through the memory
    assert target.mix.weight.grad is None and teacher.mix.weight.grad is None


def test_target_is_a_copy_at_pure_data():
    """At t = 0 the clean estimate is the input, whatever the network says."""
    x = RNG.randn((2, 3, 4, 4), "x")
    assert torch.equal(flow.x0_from_velocity(x, 1e3 * x, torch.zeros(ROWS)), x)


@pytest.mark.parametrize("backbone", ["toy-blocks", "gaussian"])
def test_passes_are_counted_by_hand(tmp_path, backbone):
    from salt_zoo.config.run import resolve
    from salt_zoo.training.launch import train

    updates, batch = 3, 4
    toys = load_zoo(["tests.gaussian.plugin", "tests.blocks.plugin"])
    content = {
        "method": "consistency",
        "backbone": backbone,
        "dataset": backbone,
        "training": {"updates": updates, "batch_size": batch, "trackers": []},
    }
    trainer = train(resolve(content, toys, "test"), tmp_path, toys, "cpu")
    counts = trainer.counter.counts
    videos = pytest.approx(updates * batch)
    assert counts["student"] == {"forward": videos, "backward": videos}
    assert counts["target"] == {"forward": videos, "backward": 0}
    assert counts["teacher"] == {"forward": pytest.approx(2 * updates * batch), "backward": 0}
    if backbone == "toy-blocks":
        calls = trainer.networks["student"].calls
        seen = [(call[0], call[1], call[3]) for call in calls[:5]]
        forward, update_cache = "forward", "update_cache"
        assert seen == [
            (forward, BLOCK, 0),
            (update_cache, BLOCK, 0),
            (forward, BLOCK, 1),
            (update_cache, BLOCK, 1),
            (forward, BLOCK, 2),
        ]
