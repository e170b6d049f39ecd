"""`salt-zoo pretrain`: a teacher from nothing, and a student of that teacher."""

from __future__ import annotations

import json
import os

import pytest

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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
