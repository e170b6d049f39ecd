"""Generation does not depend on how it is batched, and costs what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError, create_model

from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.costs.counter import PassCounter
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.rollout.sampler import initial_noise, renoise_from, rollout
from salt_zoo.training.remembered import sampling_of
from tests.blocks.plugin import ToyBackbone

PROMPTS = ["one", "two", "two", "one", "two"]
RNG = KeyedRNG(3, ("evaluation",), range(5))
GUIDED = SamplingConfig(steps=3, guidance_scale=2.5)


@pytest.fixture
def toy():
    return ToyBackbone(None, None)


@pytest.fixture(params=["toy", "wan"])
def setting(request, zoo, toy, teacher):
    """A network, its backbone and five prompts: with a memory, and a real transformer without."""
    if request.param == "toy":
        return toy.network("student"), toy, PROMPTS
    options = {"size": "digits", "options": {"weights": str(teacher)}}
    config = zoo.backbones.configure("wan", options, "test")
    wan = zoo.backbones.create("wan", config, zoo)
    return wan.network("student"), wan, [f"a {digit} moving up slowly" for digit in range(5)]


@pytest.mark.parametrize("config", [SamplingConfig(steps=2), GUIDED], ids=["plain", "guided"])
def test_batch_size_changes_no_video(setting, config):
    network, backbone, prompts = setting
    whole = generate(network, backbone, prompts, RNG, config, batch_size=5)
    for size in (1, 2):
        split = generate(network, backbone, prompts, RNG, config, batch_size=size)
        # matrix products of other sizes round otherwise
        torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)


def test_other_prompts_change_no_video(setting):
    network, backbone, prompts = setting
    config = SamplingConfig(steps=2)
    whole = generate(network, backbone, prompts, RNG, config, batch_size=1)
    some = generate(network, backbone, prompts[3:], RNG.for_rows([3, 4]), config, batch_size=1)
    assert torch.equal(whole[3:], some)


def test_it_is_the_rollout(toy):
    network = toy.network("student")
    wanted = rollout(
        network,
        initial_noise(RNG, toy.blocks(), toy.latent_shape),
        toy.encode_prompts(PROMPTS),
        flow.step_list(4, 5.0),
        blocks=toy.blocks(),
        renoise=renoise_from(RNG, toy.blocks(), toy.latent_shape),
    )
    assert torch.equal(generate(network, toy, PROMPTS, RNG, SamplingConfig()), wanted)


def test_every_prompt_needs_its_row(toy):
    with pytest.raises(ValueError, match="2 prompts need 2 rows of draws, not 5"):
        generate(toy.network("student"), toy, PROMPTS[:2], RNG, SamplingConfig())


@pytest.mark.parametrize("first", [False, True], ids=["blocks of 3", "a first frame"])
@pytest.mark.parametrize("scale", [1.0, 2.5], ids=["plain", "guided"])
def test_passes_are_those_that_happen(zoo, teacher, first, scale):
    """Through a real causal network, whose memory writes are passes, too."""
    options = {"size": "digits", "options": {"weights": str(teacher)}, "block_frames": 3}
    if first:  # 9 frames: 1 and 4 + 4
        options |= {"block_frames": 4, "independent_first_frame": True}
    name = "self-forcing"
    causal = zoo.backbones.create(name, zoo.backbones.configure(name, options, "test"), zoo)
    network, frames = causal.network("student"), causal.latent_shape[1]
    config = SamplingConfig(steps=3, guidance_scale=scale)
    counter = PassCounter({"student": network}, frames)
    prompts = [f"a {digit} moving up slowly" for digit in range(3)]
    generate(network, causal, prompts, RNG.for_rows(range(3)), config, batch_size=2)
    passes = config.passes(causal.blocks(), frames)
    counted = counter.counts["student"]
    assert counted["forward"] / len(prompts) == pytest.approx(sum(passes.values()))
    assert counted["backward"] == 0
    twice = 2 if scale != 1 else 1
    written = {False: 6 / 9, True: 5 / 9}[first]
    assert passes == {"nfe": 3, "guidance": 3 * (twice - 1), "memory": twice * written}
    counter.remove()
    generate(network, causal, prompts[:1], RNG.for_rows([0]), config)
    assert counter.counts["student"] == counted


def test_bidirectional_passes_write_no_memory():
    wanted = {"nfe": 2, "guidance": 2, "memory": 0}
    assert SamplingConfig(steps=2, guidance_scale=3).passes(Blocks(), 9) == wanted


def test_times_in_place_of_a_step_list(toy):
    network = toy.network("student")
    listed = SamplingConfig(steps=4, times=flow.step_list(4, 5.0), timestep_shift=1.0)
    usual = generate(network, toy, PROMPTS, RNG, SamplingConfig(steps=4))
    assert torch.equal(generate(network, toy, PROMPTS, RNG, listed), usual)
    own = SamplingConfig(steps=2, times=[0.9, 0.3])
    assert own.step_times == [0.9, 0.3] and own.passes(toy.blocks(), 6)["nfe"] == 2
    with pytest.raises(ValidationError, match="2 times are not 3 steps"):
        SamplingConfig(steps=3, times=[0.9, 0.3])
    with pytest.raises(ValidationError, match="must fall strictly"):
        SamplingConfig(steps=2, times=[0.3, 0.9])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"timestep_shift": 0}, {"sampler": "heun"}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        SamplingConfig(**wrong)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": {8: 0.4, 4: 0.4, 2: 0.2}, "sampler": "ode"}, {"steps": 8, "sampler": "ode"}),
        ({"steps": {4: 1.0}, "timestep_shift": 3}, {"steps": 4, "timestep_shift": 3.0}),
        ({"steps": True, "sampler": "euler", "timestep_shift": 0}, {}),
        ({"steps": 2}, {"steps": 2}),
        ({}, {}),
    ],
)
def test_what_a_student_remembers(options, expected):
    model = create_model("Options", **{name: (Any, None) for name in options})
    assert sampling_of(model(**options)) == expected
