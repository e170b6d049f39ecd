"""The shipped teacher and judge: whole, made by the recipes beside them, and good enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo.config.metrics import make_metrics
from salt_zoo.config.run import resolve
from salt_zoo.evaluation.videos import evaluation_draws, evaluation_prompts, make_videos, measure
from salt_zoo.io.files.storage import file_digest
from salt_zoo.io.yaml import read_yaml
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.generate import SamplingConfig
from salt_zoo_digits.data import Digits
from salt_zoo_digits.judge import JUDGE
from salt_zoo_digits.recipes import HERE
from salt_zoo_digits.size import CAUSAL, TEACHER, TRANSFORMER, DigitsSize, DigitsSizeConfig
from salt_zoo_wan.sizes import transformer_config


@pytest.mark.parametrize("folder", [TEACHER, JUDGE])
def test_the_log_beside_the_weights_names_their_digest(folder: Path):
    log = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert log["files"] == {p.name: file_digest(p) for p in folder.glob("*.safetensors")}
    assert sum(p.stat().st_size for p in folder.iterdir()) < 4_000_000


def test_the_teachers_log_is_of_the_recipe_that_is_shipped():
    log = json.loads((TEACHER / "training.json").read_text(encoding="utf-8"))
    zoo = load_zoo()
    # options that came later have their defaults, which change nothing
    made = resolve(log["run"], zoo, "training.json").plain()
    assert made == resolve(read_yaml(HERE / "teacher.yaml"), zoo, "teacher.yaml").plain()


def test_the_causal_students_log_is_of_the_recipe_that_is_shipped():
    log = json.loads((CAUSAL / "training.json").read_text(encoding="utf-8"))
    zoo = load_zoo()
    made = resolve(log["run"], zoo, "training.json").plain()
    assert made == resolve(read_yaml(HERE / "causal.yaml"), zoo, "causal.yaml").plain()


def test_a_size_of_another_transformer_is_read_off_it(zoo):
    class Shorter(DigitsSize):
        def transformer(self, start):
            return WanTransformer3DModel(**{**TRANSFORMER, "num_layers": 1})

    sizes = [kind(DigitsSizeConfig(), zoo) for kind in (DigitsSize, Shorter)]
    assert [transformer_config(size)["num_layers"] for size in sizes] == [4, 1]


def test_the_teacher_passes_its_gates():
    """At full steps: commanded motion >= .97, digit >= .98, rigidity error <= .08.

    Of 32 videos both shares allow no miss: 31 / 32 = .969.
    """
    zoo = load_zoo()
    backbone = zoo.backbones.create("wan", zoo.backbones.configure("wan", {}, "wan"), zoo)
    prompts = evaluation_prompts(Digits(), "test", 32)
    rng = evaluation_draws(0, "test", len(prompts), "cpu")
    metrics = make_metrics(zoo, ["digits-motion", "digits-class", "digits-rigidity"])
    full = SamplingConfig(steps=50, sampler="ode", guidance_scale=2.0)
    with torch.inference_mode():
        videos = make_videos(
            backbone.network("teacher"), backbone, Digits(), prompts, rng, full, split="test"
        )
    found = {name: metrics[name].reduce(rows) for name, rows in measure(metrics, videos).items()}
    assert found["digits-motion"] >= 0.97
    assert found["digits-class"] >= 0.98
    assert found["digits-rigidity"] <= 0.08
