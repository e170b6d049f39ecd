"""Distances of memories that few steps make, and what they do to the last block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from salt_zoo.core import flow
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.protocols import BackboneDefaults
from salt_zoo.evaluation.videos import Videos, measure
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.sampler import initial_noise
from tests.blocks import plugin as toys
from tests.gaussian.plugin import GaussianBackbone, GaussianConfig
from tests.plugins import tiny_causal as tiny

LAYERS = ["cache-distance-first", "cache-distance-last"]
NAMES = ["cache-distance", "cache-distance-4", "cache-sensitivity", *LAYERS]
ROWS = 6


@pytest.fixture(scope="module")
def toy_zoo():
    return load_zoo(["tests.gaussian.plugin", "tests.blocks.plugin"])


@pytest.fixture
def make(toy_zoo):
    def make(name, **options):
        config = toy_zoo.metrics.configure(name, options, "test")
        return toy_zoo.metrics.create(name, config, toy_zoo)

    return make


class TinyBackbone(BackboneDefaults):
    """What a metric asks of a backbone, around a causal Wan of two layers."""

    latent_shape = (tiny.CHANNELS, 6, tiny.SIZE, tiny.SIZE)

    def blocks(self, network):
        return network.partition

    def encode_prompts(self, prompts):
        return {"text": torch.cat([tiny.prompt(int(p), 1)["text"] for p in prompts])}


def videos(network=None, backbone=None, prompts=None):
    prompts = prompts or ["one", "two", "one"] * (ROWS // 3)
    nothing = torch.zeros(0, 1, 1, 1, 1)
    rng = KeyedRNG(0, ("test",), range(ROWS))
    return Videos(nothing, prompts, rng, toys.ToyData(None, None), backbone, network)


def toy_videos():
    backbone = toys.ToyBackbone(None, None)
    return videos(backbone.network("student"), backbone)


def tiny_videos(memory="full"):
    small = {"frames": 4, "sink": 0} if memory == "window" else {}
    network = tiny.network(tiny.policy(memory, **small))
    return videos(network, TinyBackbone(), [str(row) for row in range(ROWS)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampler", ["ode", "sde"])
@pytest.mark.parametrize("made", [toy_videos, tiny_videos])
def test_equal_numbers_of_steps_have_distance_0(make, name, sampler, made):
    scores = make(name, steps=4, reference=4, sampler=sampler).measure(made())
    assert torch.equal(scores, torch.zeros(ROWS))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("memory", ["full", "window"])
def test_fewer_steps_have_a_distance(make, name, memory):
    metric = make(name)
    rows = measure({name: metric}, tiny_videos(memory))[name]
    assert rows.shape == (ROWS,)
    assert (rows > 0).all() and torch.isfinite(rows).all()
    assert metric.reduce(rows) == pytest.approx(rows.mean().item())
    assert (metric.own_steps, metric.direction) == (8, "lower")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("made", [toy_videos, tiny_videos])
def test_batches_do_not_change_a_score(make, name, made):
    few = made()
    few = replace(few, prompts=few.prompts[:3], rng=few.rng.for_rows(range(3)))
    whole = make(name).measure(few)
    for size in (1, 2):
        torch.testing.assert_close(make(name, batch_size=size).measure(few), whole)


def test_the_two_distances_differ_in_their_steps(make):
    torch.testing.assert_close(
        make("cache-distance-4").measure(tiny_videos()),
        make("cache-distance", steps=4).measure(tiny_videos()),
    )
    assert (make("cache-distance").config.steps, make("cache-distance").config.reference) == (2, 8)


def test_distances_are_those_of_the_layers(make):
    """A causal Wan of two layers."""
    first, last = (make(name).measure(tiny_videos()) for name in LAYERS)
    torch.testing.assert_close(make("cache-distance").measure(tiny_videos()), (first + last) / 2)
    torch.testing.assert_close(make("cache-distance", layer=1).measure(tiny_videos()), last)
    assert not torch.allclose(first, last)


@pytest.mark.parametrize("layer", [2, -3])
def test_a_layer_that_is_not_there_is_one_line(make, layer):
    with pytest.raises(ZooError, match=rf"^cache-distance.layer: {layer} is not one of 0 to 1$"):
        make("cache-distance", layer=layer).measure(tiny_videos())


@pytest.mark.parametrize("name", NAMES)
def test_without_a_memory_there_is_no_score(make, name):
    backbone = GaussianBackbone(GaussianConfig(), None)
    bidirectional = videos(backbone.network("student"), backbone)
    for one in (videos(), bidirectional):
        assert make(name).measure(one).isnan().tolist() == [True] * ROWS


def test_a_memory_that_cannot_be_compared_has_no_distance(make, monkeypatch):
    left_out = ("distance", "__dict__", "__weakref__")
    members = {name: value for name, value in vars(toys.Means).items() if name not in left_out}
    monkeypatch.setattr(toys, "Means", type("Plain", (), members))
    assert make("cache-distance").measure(toy_videos()).isnan().all()
    assert make("cache-sensitivity").measure(toy_videos()).isfinite().all()


@torch.no_grad()
def by_hand(made, steps, reference):
    """Distance and sensitivity of the toy, whose two remembered blocks are vectors."""
    network, backbone = made.network, made.backbone
    condition = backbone.encode_prompts(made.prompts)
    noise = initial_noise(made.rng, backbone.blocks(), backbone.latent_shape)

    def block(x, count, past):
        listed = flow.step_list(count, 5.0)
        for t, following in zip(listed, [*listed[1:], 0.0], strict=True):
            memory = toys.Means(ROWS, list(past))
            x = x + (following - t) * network(x, torch.full((ROWS,), t), condition, memory)
        return x

    def past(count):
        found = []
        for part in noise[:, :, :4].split(2, dim=2):
            found.append(network.write(block(part, count, found).mean(dim=(2, 3, 4))))
        return found

    few, many = past(steps), past(reference)
    distance = (torch.cat(few, 1) - torch.cat(many, 1)).norm(dim=1) / torch.cat(many, 1).norm(dim=1)
    own, wanted = (block(noise[:, :, 4:], reference, p).flatten(1) for p in (few, many))
    return distance, (own - wanted).norm(dim=1) / wanted.norm(dim=1)


def test_the_toy_by_hand(make):
    distance, sensitivity = by_hand(toy_videos(), 2, 8)
    tolerance = {"rtol": 1e-3, "atol": 1e-6}
    found = make("cache-distance").measure(toy_videos())
    torch.testing.assert_close(found, distance, **tolerance)
    found = make("cache-sensitivity").measure(toy_videos())
    torch.testing.assert_close(found, sensitivity, **tolerance)


def test_a_network_that_does_not_look_back_is_not_sensitive(make):
    made = toy_videos()
    with torch.no_grad():
        made.network.look.weight.zero_()
    assert make("cache-sensitivity").measure(made).max() == 0
    assert make("cache-distance").measure(made).min() > 0


def test_a_distance_is_relative(make):
    """Twice the keys are no further apart."""
    made = toy_videos()
    before = make("cache-distance").measure(made)
    with torch.no_grad():
        for parameter in (made.network.write.weight, made.network.write.bias):
            parameter.mul_(2)
        made.network.look.weight.div_(2)
    torch.testing.assert_close(make("cache-distance").measure(made), before)


def test_other_rows_have_other_scores(make):
    whole = tiny_videos()
    part = replace(whole, prompts=whole.prompts[2:4], rng=whole.rng.for_rows(range(2, 4)))
    for name in NAMES:
        torch.testing.assert_close(make(name).measure(part), make(name).measure(whole)[2:4])
