"""CDA's reference path: what it shares with the student's, and what it must leave alone; and the
gradient of the alignment term."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import get_args

import pytest
import torch

from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import RolloutPath
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.sampler import initial_noise, iter_rollout, renoise_from, rollout
from salt_zoo_cda.alignment import Kernel
from salt_zoo_cda.objective import CacheAlignment, CacheAlignmentConfig
from salt_zoo_cda.reference import reference_video
from salt_zoo_wan.transformer.network import WanNetwork
from tests.blocks.plugin import ToyBackbone
from tests.plugins import tiny_causal as tiny

SHIFT = 5.0
SMALL = {
    "full": {},
    "window": {"frames": 4, "sink": 0},
    "block-relative": {"frames": 4, "sink": 1},
    "ema-sink": {"frames": 4, "sink": 2},
}


def times(steps):
    return flow.step_list(steps, SHIFT)


def toy_turn(rng=None, blocks=None):
    toy = ToyBackbone(None, None)
    frozen = toy.network("teacher").requires_grad_(False)
    student, names = toy.network("student"), ["one", "two"]
    batch = Batch(names, toy.encode_prompts(names), toy.encode_prompts(["", ""]), None)
    networks = {"student": student, "teacher": frozen, "fake_score": frozen}
    rng = rng or KeyedRNG(0, rows=range(2))
    return TrainStep(
        "student",
        0,
        networks,
        batch,
        rng,
        blocks or toy.blocks(),
        toy.latent_shape,
        lambda loss: None,
    )


def tiny_turn(memory="full", frames=6, **blocks):
    """A turn of a causal Wan with a bidirectional teacher; two rows."""
    student = tiny.network(tiny.policy(memory, **SMALL[memory]), **blocks).requires_grad_(True)
    teacher = WanNetwork(tiny.transformer(1)).requires_grad_(False)
    batch = Batch(["one", "two"], tiny.prompt(), tiny.prompt(3), None)
    shape = (tiny.CHANNELS, frames, tiny.SIZE, tiny.SIZE)
    networks = {"student": student, "teacher": teacher}
    rng = KeyedRNG(0, rows=range(2))
    return TrainStep(
        "student", 0, networks, batch, rng, student.partition, shape, lambda loss: None
    )


def own_video(step, path):
    return rollout(
        step.networks["student"],
        initial_noise(step.rng, step.blocks, step.latent_shape),
        step.batch.condition,
        path.times,
        blocks=step.blocks,
        renoise=renoise_from(step.rng, step.blocks, step.latent_shape),
        exit_step=path.exit_step,
        sampler=path.sampler,
    )


class Noting(KeyedRNG):
    """Writes down the keys of all that is drawn."""

    def generator(self, *key):
        NOTED.append((self.scope, key))
        return super().generator(*key)


NOTED: list = []


@pytest.mark.parametrize("renoising", ["independent", "aligned"])
@pytest.mark.parametrize("sampler", ["sde", "ode"])
def test_the_path_has_its_own_steps_and_memory(renoising, sampler):
    """From 2 steps at exit 1 to 4: three steps a block, up to the student's time, each block
    remembered by a memory that begins empty."""
    step, path = toy_turn(), RolloutPath(times(2), 1, sampler)
    network = step.networks["student"]
    reference_video(network, step, path, times(4), renoising)
    calls = iter(network.calls)
    for block in range(3):
        for t in times(4)[:3]:
            kind, frames, at, known = next(calls)
            assert (kind, frames, known) == ("forward", 2, block)
            assert at == pytest.approx(t)
        if block < 2:
            assert next(calls)[0] == "update_cache"
    assert next(calls, None) is None


@pytest.mark.parametrize("memory", SMALL)
@pytest.mark.parametrize("renoising", ["independent", "aligned"])
def test_it_leaves_everything_else_alone(memory, renoising):
    step, path = tiny_turn(memory), RolloutPath(times(2), 1)
    student = step.networks["student"]
    student_noise = initial_noise(step.rng, step.blocks, step.latent_shape)
    renoise = renoise_from(step.rng, step.blocks, step.latent_shape)
    exits = iter_rollout(
        student,
        student_noise,
        step.batch.condition,
        path.times,
        blocks=step.blocks,
        renoise=renoise,
        exit_step=1,
    )
    next(exits)
    its = next(exits).memory  # in the middle of the student's own rollout, one block remembered
    weights = [p.clone() for p in student.parameters()]
    kept = [buffer.clone() for buffer in (*its.keys, *its.values)]
    state, known = torch.get_rng_state(), (its.count, its.version)
    video = reference_video(student, step, path, times(4), renoising)
    assert not video.requires_grad and video.grad_fn is None
    assert all(p.grad is None for p in student.parameters())
    assert all(map(torch.equal, student.parameters(), weights))
    assert all(map(torch.equal, (*its.keys, *its.values), kept))
    assert (its.count, its.version) == known
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad for p in student.parameters())


def test_independent_draws_are_of_another_scope():
    step = toy_turn(Noting(0, rows=range(2)))
    NOTED.clear()
    path = RolloutPath(times(2), 1)
    own_video(step, path)
    own = set(NOTED)
    NOTED.clear()
    reference_video(step.networks["student"], step, path, times(4), "independent")
    shared = {entry for entry in NOTED if "initial noise" in entry[1]}
    assert shared <= own
    assert own.isdisjoint(set(NOTED) - shared)
    NOTED.clear()
    reference_video(step.networks["student"], step, path, times(4), "aligned")
    assert set(NOTED) == own  # nothing but what the student drew


@pytest.mark.parametrize("context_noise", [0.0, 0.1])
@pytest.mark.parametrize("sampler", ["sde", "ode"])
@pytest.mark.parametrize("exit_step", [1, 2])
def test_aligned_on_an_equal_list_is_the_students_path(context_noise, sampler, exit_step):
    step = tiny_turn(context_noise=context_noise)
    path = RolloutPath(times(4), exit_step, sampler)
    found = reference_video(step.networks["student"], step, path, times(4), "aligned")
    assert torch.equal(found, own_video(step, path))


def test_aligned_goes_along_the_velocity_to_times_that_the_student_lacks():
    """By hand: 1 -> 0.9375 by the velocity, -> 0.8333 with the student's noise; first block."""
    step, path = toy_turn(), RolloutPath(times(2), 1)
    network, condition = step.networks["student"], step.batch.condition
    found = reference_video(network, step, path, times(4), "aligned")
    x = initial_noise(step.rng, step.blocks, step.latent_shape)[:, :, :2]
    first, second, third, _ = times(4)
    ask = lambda x, t: network(x, torch.full((2,), t), condition)  # noqa: E731
    x = flow.euler_step(x, ask(x, first), first, second)
    x0 = flow.x0_from_velocity(x, ask(x, second), second)
    renoise = renoise_from(step.rng, step.blocks, step.latent_shape)
    x = flow.add_noise(x0, renoise(0, third), third)
    x0 = flow.x0_from_velocity(x, ask(x, third), third)
    torch.testing.assert_close(found[:, :, :2], x0.detach())


@pytest.mark.parametrize("memory", SMALL)
def test_every_loss_is_finite_and_moves_the_student_alone(memory):
    step, path = tiny_turn(memory), RolloutPath(times(2), 1)
    video = own_video(step, path)
    losses = [("trd", "linear"), ("x0", "linear"), *(("mmd", k) for k in get_args(Kernel))]
    # a loss sees the two videos alone: each with each renoising, but not under every memory
    first = list(SMALL).index(memory)
    paths = itertools.islice(itertools.cycle(["independent", "aligned"]), first, None)
    for (loss, kernel), renoising in zip(losses, paths, strict=False):
        config = CacheAlignmentConfig(
            loss=loss, kernel=kernel, renoising=renoising, start=0, margin=0.0, sigma=1.0
        )
        student_side = video.clone().requires_grad_()
        term = CacheAlignment(config, None).on_video(student_side, path, step)
        assert term.shape == () and torch.isfinite(term)
        term.backward()
        assert torch.isfinite(student_side.grad).all()
        assert student_side.grad.abs().sum() > 0, (loss, kernel)
        for network in step.networks.values():
            assert all(p.grad is None for p in network.parameters())


def test_features_have_the_same_gradient_with_checkpointing():
    teacher, x = WanNetwork(tiny.transformer()).requires_grad_(False), tiny.video(4)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            teacher.enable_gradient_checkpointing()
            teacher.train()
        own = x.clone().requires_grad_()
        teacher.features(own, tiny.at(0.3), tiny.prompt(), 0.0).square().sum().backward()
        found.append(own.grad)
    torch.testing.assert_close(found[0], found[1])


def test_rows_do_not_change_the_term():
    """A term over two rows is the mean of the terms of each: one shared time, own noise."""
    step, path = tiny_turn(), RolloutPath(times(2), 1)
    video, config = own_video(step, path), CacheAlignmentConfig(start=0, margin=0.0)
    both = CacheAlignment(config, None).on_video(video, path, step)
    apart = []
    for row in range(2):
        one = {"text": step.batch.condition["text"][row : row + 1]}
        alone = replace(
            step,
            batch=replace(step.batch, condition=one),
            rng=step.rng.for_rows(range(row, row + 1)),
        )
        apart.append(CacheAlignment(config, None).on_video(video[row : row + 1], path, alone))
    torch.testing.assert_close(both, torch.stack(apart).mean())


def test_alignment_brings_two_steps_to_four():
    """Along the velocity, on one fixed noise, a toy is trained by the term alone; its optimum, a
    field whose 2 and 4 steps agree, has distance 0."""
    zoo = load_zoo(["tests.blocks.plugin"])
    options = {
        "steps": 2,
        "sampler": "ode",
        "objectives": {
            "distribution-matching": None,
            "self-consistency": None,
            "cache-alignment": {"start": 0, "loss": "x0", "weight": 1.0},
        },
    }
    method = zoo.methods.create("cda", zoo.methods.configure("cda", options, "test"), zoo)
    seed = next(s for s in range(99) if KeyedRNG(s).shared_randint(2, "exit step") == 1)
    step = replace(toy_turn(KeyedRNG(seed, rows=range(2))), backward=torch.Tensor.backward)
    network = step.networks["student"]
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    path = RolloutPath(times(2), 1, "ode")

    def distance():
        other = reference_video(network, step, path, times(4), "independent")
        return (own_video(step, path) - other).square().mean().item()

    before = distance()
    for _ in range(150):
        optimizer.zero_grad()
        assert "loss" in method.train(step)
        optimizer.step()
    assert distance() < 0.2 * before
