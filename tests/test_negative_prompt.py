"""The negative prompt is what guidance leads away from: in training, sampling, streams and
trajectories, and in what identifies a backbone."""

from __future__ import annotations

import hashlib

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.guidance import Guided
from salt_zoo.core.networks.condition import negative_prompt, unconditional, without_prompt
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.rollout.sampler import initial_noise, renoise_from, rollout
from salt_zoo.rollout.stream import stream
from salt_zoo.training.launch import train
from tests.blocks.plugin import ToyBackbone

RNG = KeyedRNG(5, ("sample",), range(2))
GUIDED = SamplingConfig(steps=2, guidance_scale=3.0)


class Negative(ToyBackbone):
    negative_prompt = "two"


@pytest.fixture(scope="module")
def toys():
    zoo = load_zoo(["tests.blocks.plugin"])
    zoo.backbones.add("negative", Negative, "a toy with a negative prompt")
    return zoo


def by_hand(toy, prompt):
    """A guided rollout away from `prompt`."""
    network, blocks, shape = toy.network("student"), toy.blocks(), toy.latent_shape
    return rollout(
        Guided(network, toy.encode_prompts([prompt] * 2), 3.0),
        initial_noise(RNG, blocks, shape),
        toy.encode_prompts(["one"] * 2),
        [1.0, 5 / 6],
        blocks=blocks,
        renoise=renoise_from(RNG, blocks, shape),
    )


@pytest.mark.parametrize(("kind", "prompt"), [(Negative, "two"), (ToyBackbone, "")])
@torch.no_grad()
def test_sampling_and_streams_lead_away_from_it(kind, prompt):
    toy = kind(None, None)
    wanted = by_hand(toy, prompt)
    assert not torch.equal(wanted, by_hand(toy, "" if prompt else "two"))
    found = generate(toy.network("student"), toy, ["one"] * 2, RNG, GUIDED)
    torch.testing.assert_close(found, wanted)
    made = list(stream(toy.network("student"), toy, "one", RNG, GUIDED, blocks=3))
    torch.testing.assert_close(torch.cat(made, dim=2), wanted)


@pytest.mark.parametrize(("backbone", "prompt"), [("negative", "two"), ("toy-blocks", "")])
def test_training_leads_away_from_it_and_drops_prompts_for_the_empty_one(
    backbone, prompt, toys, tmp_path, monkeypatch
):
    from salt_zoo_flow_matching.draws import with_dropout
    from salt_zoo_flow_matching.method import FlowMatching

    seen = []
    run = FlowMatching.train

    def spy(self, step):
        seen.append((step.batch.unconditional, with_dropout(step, 1.0)))
        return run(self, step)

    monkeypatch.setattr(FlowMatching, "train", spy)
    content = {
        "method": {"name": "teacher-forcing"},
        "backbone": backbone,
        "dataset": "toy-blocks",
        "training": {"updates": 1, "batch_size": 3, "trackers": []},
    }
    trainer = train(resolve(content, toys, "test"), tmp_path, toys, "cpu")
    encode = trainer.backbone.encode_prompts
    ((away, dropped),) = seen
    assert torch.equal(away["which"], encode([prompt] * 3)["which"])
    assert torch.equal(dropped["which"], encode([""] * 3)["which"])


def test_trajectories_lead_away_from_it(toys, tmp_path):
    from salt_zoo_ode.store import read_folder

    found = {}
    for backbone in ("negative", "toy-blocks"):
        options = {
            "backbone": {"name": backbone},
            "dataset": {"name": "toy-blocks"},
            "count": 2,
            "teacher_steps": 8,
            "guidance_scale": 3.0,
        }
        config = toys.recipes.configure("trajectories", options, "test")
        toys.recipes.create("trajectories", config, toys).run(tmp_path / backbone, "cpu")
        found[backbone] = read_folder(tmp_path / backbone).read([0, 1])
    assert torch.equal(found["negative"][:, 0], found["toy-blocks"][:, 0])  # the same noise
    assert not torch.allclose(found["negative"][:, -1], found["toy-blocks"][:, -1])


def test_backbones_without_one_have_the_empty_prompt():
    toy = ToyBackbone(None, None)
    assert negative_prompt(toy) == "" and negative_prompt(Negative(None, None)) == "two"
    assert torch.equal(unconditional(toy, 2)["which"], without_prompt(toy, 2)["which"])


def make(zoo, name="wan", size="wan2.1-t2v-1.3b", **options):
    config = zoo.backbones.configure(name, {"size": size, "options": options}, "test")
    return zoo.backbones.create(name, config, zoo)


@pytest.mark.parametrize("name", ["wan", "self-forcing"])
@pytest.mark.parametrize("size", ["wan2.1-t2v-1.3b", "wan2.1-t2v-14b"])
def test_published_sizes_have_wans_own(zoo, name, size):
    """`sample_neg_prompt` of Wan2.1's wan/configs/shared_config.py, by its digest."""
    text = make(zoo, name, size).negative_prompt
    assert (len(text), text[:4], text[-3:]) == (137, "色调艳丽", "倒着走")
    wanted = "ce96e0324e4b54ce4b6e867f669ca520952e1a34cc116543516b1897f0d3c47e"
    assert hashlib.sha256(text.encode()).hexdigest() == wanted


def test_it_is_an_option_and_identifies_the_teacher(zoo):
    own, other, empty = (
        make(zoo, **options) for options in ({}, {"negative_prompt": "x"}, {"negative_prompt": ""})
    )
    assert (other.negative_prompt, empty.negative_prompt) == ("x", "")
    found = [one.fingerprint().get("negative_prompt") for one in (own, other, empty)]
    assert found[2] is None and len(set(found)) == 3
    digits = make(zoo, size="digits")
    assert digits.negative_prompt == "" and "negative_prompt" not in digits.fingerprint()


def test_the_saved_readme_shows_it_where_guidance_is_used(tmp_path):
    from salt_zoo_wan.pipeline import write_pipeline

    write_pipeline(tmp_path, {}, (480, 832), 81, 16.0, "nothing 'bad'", 5.0)
    readme = (tmp_path / "README.md").read_text()
    assert "guidance_scale=5,\n    negative_prompt=\"nothing 'bad'\"" in readme
