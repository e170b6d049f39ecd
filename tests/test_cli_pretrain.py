"""`salt-zoo pretrain`: a teacher from nothing, and a student of that teacher."""

from __future__ import annotations

import json
import os

import pytest
import torch
import yaml

from salt_zoo.config.run import resolve
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train
from tests.gaussian.plugin import means

pytestmark = pytest.mark.usefixtures("one_zoo")

SMALL = (
    *("--set", "run.training.updates=2"),
    *("--set", "run.training.batch_size=2"),
    *("--set", "run.training.checkpoint_every=1"),
)


def test_a_teacher_that_a_run_starts_from(cli, write_run, tmp_path):
    out = tmp_path / "made"
    assert cli("pretrain", "digits-teacher", "--out", out, "--device", "cpu", *SMALL).code == 0
    teacher = out / "teacher"
    log = json.loads((teacher / "training.json").read_text())
    assert log["run"]["training"]["updates"] == 2
    assert log["files"].keys() == {"diffusion_pytorch_model.safetensors"}
    config = write_run(backbone={"options": {"weights": str(teacher)}}, training={"updates": 1})
    assert cli("train", config, "--out", tmp_path / "out").code == 0


#: Of the recipe `teacher`, at a size whose weights are random.
ANY = (
    *("-p", "tests.sizes.plugin", "--device", "cpu", *SMALL),
    *("--set", "backbone.size=test-small", "--set", "dataset=digits"),
)


@pytest.mark.parametrize("method", ["teacher-forcing", "diffusion-forcing"])
@pytest.mark.parametrize("backbone", ["wan", "self-forcing"])
def test_weights_of_any_backbone(backbone, method, cli, tmp_path):
    """They are another's than the run began with, and where the backbone takes them."""
    made = tmp_path / "made"
    chosen = ("--set", f"backbone.name={backbone}", "--set", f"method={method}")
    ended = cli("pretrain", "teacher", *ANY, *chosen, "--out", made)
    assert (ended.code, ended.out) == (0, f"{made / 'teacher'}\n"), ended.err
    run = yaml.safe_load((made / "run" / "run.yaml").read_text())
    assert run["method"]["name"] == method and run["method"]["start"] == "random"
    assert run["training"]["updates"] == 2 and run["training"]["clip"] == 1.0
    zoo = load_zoo(["tests.sizes.plugin"])
    options = {"initial": str(made / "teacher")} if backbone == "self-forcing" else {}
    config = zoo.backbones.configure(backbone, {"size": "test-small", **options}, "test")
    subject = zoo.backbones.create(backbone, config, zoo)
    saved = subject.load(made / "teacher").state_dict()
    if backbone == "self-forcing":
        student = subject.network("student").state_dict()
        assert all(torch.equal(student[name], saved[name]) for name in saved)
    again = cli("pretrain", "teacher", *ANY, *chosen, "--out", made)
    assert again.code == 0  # it is done, and stays what it is
    kept = subject.load(made / "teacher").state_dict()
    assert all(torch.equal(kept[name], saved[name]) for name in saved)


def test_it_learns(tmp_path):
    """On Gaussians whose velocity the network can be: the loss falls to the optimum's."""
    zoo = load_zoo(["tests.gaussian.plugin"])
    training = {"updates": 300, "batch_size": 16, "log_every": 1, "trackers": []}
    options = {
        "backbone": "gaussian",
        "dataset": "gaussian",
        "run": {"method": {"learning_rate": 0.02}, "training": training},
    }
    config = zoo.recipes.configure("teacher", options, "test")
    recipe = zoo.recipes.create("teacher", config, zoo)
    trainer = train(resolve(recipe.content, zoo, "test"), tmp_path, zoo, "cpu")
    losses = [logs["student/loss"] for logs in trainer.history]
    assert sum(losses[-30:]) < 0.8 * sum(losses[:30])
    assert (trainer.networks.eval_network.means - means())[:2].abs().max() < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("teacher", "--set", "backbone=wan"), "recipe teacher: dataset: this key is required"),
        (
            ("teacher", *ANY, "--set", "backbone.name=wann"),
            "recipe teacher: run: backbone: unknown backbone 'wann'; did you mean 'wan'",
        ),
        (
            ("teacher", *ANY, "--set", "backbone.name=wan", "--set", "run.backbone=wan"),
            "recipe teacher: run.backbone: write backbone itself, without run",
        ),
        (
            ("teacher", *ANY, "--set", "backbone.name=wan", "--set", "method=dmd"),
            "method: should be 'teacher-forcing' or 'diffusion-forcing'",
        ),
        (("digits-techer",), "unknown recipe 'digits-techer'; did you mean 'digits-teacher'"),
        (("digits-teacher", "--set", "ran=1"), "ran: unknown key; did you mean 'run'"),
        (
            ("digits-teacher", "--set", "run.training.updtes=1"),
            "training.updtes: unknown key; did you mean 'updates'",
        ),
        (("digits-judge", "--set", "steps=0"), "steps: should be greater than or equal to 1"),
        (("digits-teacher", "--device", "tpu", *SMALL), "--device tpu: unknown device"),
    ],
)
def test_mistakes(arguments, message, cli, tmp_path):
    ended = cli("pretrain", *arguments, "--out", tmp_path / "out")
    assert ended.code == 2 and message in ended.error


@pytest.mark.parametrize("recipe", ["digits-teacher", "digits-judge"])
def test_a_place_that_cannot_be_written(recipe, cli, tmp_path):
    (tmp_path / "file").write_text("kept")
    quick = SMALL if recipe == "digits-teacher" else ("--set", "steps=1")
    ended = cli("pretrain", recipe, "--out", tmp_path / "file" / "out", *quick)
    assert ended.code == 2 and "is a file, not a folder" in ended.error
    assert os.listdir(tmp_path) == ["file"]
