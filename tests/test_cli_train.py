"""`salt-zoo train`: from a YAML file to a student that can be sampled."""

from __future__ import annotations

import json
import os
import re

import pytest

pytestmark = pytest.mark.usefixtures("one_zoo")


def test_a_run_and_what_it_leaves(write_run, cli, tmp_path):
    folder = tmp_path / "out"
    ended = cli("train", write_run(), "--out", folder, "--device", "cpu")
    assert ended.code == 0
    begins, ends = ended.err.splitlines()
    assert begins == (
        f"note: training teacher-forcing for 4 student updates in {folder}; "
        "logs: none (training.trackers)"
    )
    assert re.fullmatch(
        r"teacher-forcing 4/4 student updates  student/loss \S+  done in \d+ s", ends
    )
    assert ended.out == f"{folder / 'student'}\n"
    assert sorted(os.listdir(folder)) == ["checkpoints", "run.yaml", "student"]
    assert sorted(os.listdir(folder / "checkpoints")) == ["step-000002", "step-000004"]
    saved = json.loads((folder / "student" / "salt_zoo.json").read_text())
    assert saved["run"]["training"]["updates"] == 4
    assert saved["cost"]["passes"]["student"] == {"forward": 8.0, "backward": 8.0}


def test_overrides_and_plugins(write_run, cli, tmp_path):
    plugin = tmp_path / "loud.py"
    plugin.write_text(
        "from salt_zoo import hookimpl\n"
        "@hookimpl\n"
        "def step_finished(step, logs): print('finished', step)\n"
    )
    run = write_run()
    options = ("--set", "training.updates=1", "--set", "method.timestep_shift=3", "-p", plugin)
    ended = cli("train", run, "--out", tmp_path / "out", *options)
    assert ended.code == 0
    assert "finished 1" in ended.err  # standard output is the command's own
    assert ended.out == f"{tmp_path / 'out' / 'student'}\n"
    saved = json.loads((tmp_path / "out" / "student" / "salt_zoo.json").read_text())
    assert saved["run"]["method"]["timestep_shift"] == 3.0


def test_the_same_command_again_does_no_update(write_run, cli, tmp_path):
    run = write_run()
    assert cli("train", run, "--out", tmp_path / "out").code == 0
    student = tmp_path / "out" / "student" / "transformer" / "diffusion_pytorch_model.safetensors"
    before = student.read_bytes()
    again = cli("train", run, "--out", tmp_path / "out")
    assert again.code == 0
    newest = tmp_path / "out" / "checkpoints" / "step-000004"
    assert f"note: all 4 updates are done ({newest})" in again.err.splitlines()
    assert student.read_bytes() == before


def test_a_resumed_run_and_its_logs_are_told(write_run, cli, tmp_path):
    folder = tmp_path / "out"
    assert cli("train", write_run(training={"updates": 2}), "--out", folder).code == 0
    longer = cli("train", write_run(training={"trackers": ["tensorboard"]}), "--out", folder)
    newest = folder / "checkpoints" / "step-000002"
    lines = longer.err.splitlines()
    assert f"note: resuming after update 2 of 4 ({newest})" in lines
    assert any(line.endswith(f"logs: tensorboard --logdir {folder / 'logs'}") for line in lines)
    assert [*(folder / "logs").rglob("events*")]


def test_quality_during_training_is_shown(write_run, cli, tmp_path):
    quality = {"every": 2, "prompts": 2, "steps": [1], "metrics": ["digits-motion"]}
    ended = cli("train", write_run(quality=quality), "--out", tmp_path / "out")
    assert ended.code == 0
    _, first, second = ended.err.splitlines()
    assert first.startswith("teacher-forcing 2/4 student updates") and "digits-motion@1" in first
    assert second.startswith("teacher-forcing 4/4") and "student/loss" in second


def test_progress_in_a_terminal(capsys, monkeypatch):
    from salt_zoo.cli.progress import training_progress

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with training_progress("my-method") as update:
        update(51, 100, {"student/loss": 0.125})
        update(52, 100, {})
    shown = capsys.readouterr().err
    assert "my-method" in shown and "52/100" in shown and "student updates" in shown
    assert "0.125" in shown


def test_progress_is_the_main_processs_alone(capsys, monkeypatch):
    from salt_zoo.cli.progress import training_progress

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("RANK", "1")
    with training_progress("my-method") as update:
        update(1, 2, {"student/loss": 0.125, "quality/a": 1.0})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("method", ["teacher-forcing", {"name": "teacher-forcing"}])
def test_a_part_may_be_only_a_name(method, zoo):
    from salt_zoo.config.run import resolve

    resolved = resolve({"method": method, "backbone": "wan", "dataset": "digits"}, zoo, "test")
    assert resolved.plain()["method"]["prompt_dropout"] == 0.1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "meta"), "--device meta: only cpu and cuda are supported"),
        (("--device", "cpu:5"), "--device cpu:5: there is one CPU"),
        (("--set", "execution.shard=7"), "execution.shard: 1 process cannot be split into groups"),
    ],
)
def test_what_cannot_run_here_is_told_before_anything_begins(words, said, cli, write_run, tmp_path):
    """One line, with no note of a training before it, and no folder."""
    ended = cli("train", write_run(), "--out", tmp_path / "run", *words)
    assert ended.code == 2 and ended.err.startswith(f"error: {said}")
    assert ended.err.count("\n") == 1 and not (tmp_path / "run").exists()
