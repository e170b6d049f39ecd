"""Two real processes that are one run, and how they end."""

from __future__ import annotations

import json
import os

import pytest
import safetensors.torch
import torch

from tests.two_processes import PAIR, ROOT, launch

#: Flow matching that saves what each process holds before its last update.
SPY = """
import os
from pathlib import Path

import torch

from salt_zoo import hookimpl
from salt_zoo_flow_matching.method import TeacherForcing


class Spy:
    Config = TeacherForcing.Config
    needs_data = True

    def __init__(self, config, zoo):
        self.inner = TeacherForcing(config, zoo)
        self.roles, self.update_order = self.inner.roles, self.inner.update_order

    def train(self, step):
        name = f"{os.environ.get('RANK', 'alone')}-{step.index}.pt"
        held = {"weights": step.networks["student"].state_dict(), "rows": list(step.rng.rows)}
        torch.save(held, Path(os.environ["SPY"]) / name)
        return self.inner.train(step)


@hookimpl
def register(zoo):
    zoo.methods.add("spy", Spy, "flow matching, watched")


@hookimpl
def training_started(step):
    print(f"started in {os.environ.get('RANK', 'alone')}")


@hookimpl
def checkpoint_saved(step):
    print(f"saved {step} in {os.environ.get('RANK', 'alone')}")
"""


def held(folder, name):
    return torch.load(folder / f"{name}.pt", weights_only=True)


@pytest.mark.slow
def test_two_processes_are_one_run(write_run, cli, tmp_path, monkeypatch):
    plugin, spied = tmp_path / "spy.py", tmp_path / "spied"
    plugin.write_text(SPY)
    spied.mkdir()
    quality = {"every": 4, "prompts": 2, "steps": [1], "metrics": ["digits-motion"]}
    training = {"batch_size": 4, "trackers": ["tensorboard"]}
    config = write_run(method={"name": "spy"}, training=training, quality=quality)
    monkeypatch.setenv("SPY", str(spied))
    plugins = ("-p", plugin, "-p", "tests.sizes.plugin")
    command = ("train", config, "--device", "cpu", *plugins, "--out")
    together = PAIR.run(["-m", "salt_zoo", *map(str, command), str(tmp_path / "together")])
    assert together.code == 0, together.err
    alone = cli(*command, tmp_path / "alone")
    assert alone.code == 0, alone.err

    # the rows of the global batch are split, and every process holds the same weights
    assert held(spied, "0-0")["rows"] == [0, 1] and held(spied, "1-0")["rows"] == [2, 3]
    assert held(spied, "alone-0")["rows"] == [0, 1, 2, 3]
    for step in range(4):
        zero, one = (held(spied, f"{rank}-{step}")["weights"] for rank in (0, 1))
        assert all(torch.equal(zero[name], one[name]) for name in zero)
    name = "checkpoints/step-000004/student.safetensors"
    a, b = (safetensors.torch.load_file(tmp_path / run / name) for run in ("together", "alone"))
    differences = torch.cat([(a[key] - b[key]).abs().flatten() for key in a])
    assert differences.mean() < 1e-5  # four updates of 1e-3

    # only the first process writes and speaks
    assert together.out.splitlines() == [str(tmp_path / "together" / "student")]
    told = [line for line in together.err.splitlines() if line.startswith(("started", "saved"))]
    assert told == ["started in 0", "saved 2 in 0", "saved 4 in 0"]
    assert together.err.count("digits-motion@1") == 1
    assert len(list((tmp_path / "together").rglob("events.out.tfevents.*"))) == 1
    assert sorted(os.listdir(tmp_path / "together")) == [
        "checkpoints",
        "logs",
        "run.yaml",
        "student",
    ]


@pytest.mark.slow
def test_two_processes_make_one_mistake(write_run, tmp_path):
    config = write_run(training={"batch_size": 3})
    words = ("-m", "salt_zoo", "train", config, "--out", tmp_path / "out")
    ended = PAIR.run([*map(str, words), "-p", "tests.sizes.plugin"])
    assert ended.code != 0
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: training.batch_size: 3 cannot be split over 2 processes; write a multiple of them"
    ]


#: DMD with a critic, which saves what each process holds before the student's update.
CRITIC = """
import os
from pathlib import Path

import torch

from salt_zoo import hookimpl
from salt_zoo_dmd.method import DMD


class Spy(DMD):
    def train(self, step):
        if step.role == "student":
            name = f"{os.environ.get('RANK', 'alone')}-{step.index}.pt"
            critic = step.networks["critic"].state_dict()
            held = {"critic": critic, "state": self.state_dict()["critic"]}
            torch.save(held, Path(os.environ["SPY"]) / name)
        return super().train(step)


@hookimpl
def register(zoo):
    objectives = {"distribution-matching": {}, "critic": {}}
    zoo.methods.add("spy", Spy, "DMD, watched", objectives=objectives)
"""


@pytest.mark.slow
def test_two_processes_have_one_critic(tmp_path):
    """Its weights and the statistics of its batch norm; states stay each process's own, and a
    resumed run is bitwise the uninterrupted one."""
    plugin, spied = tmp_path / "spy.py", tmp_path / "spied"
    plugin.write_text(CRITIC)
    spied.mkdir()

    def trained(out, updates):
        config = tmp_path / "run.yaml"
        content = {
            "method": {"name": "spy", "learning_rate": 1e-3, "fake_score": {"updates": 2}},
            "backbone": "toy-blocks",
            "dataset": "toy-blocks",
            "training": {"updates": updates, "batch_size": 4, "trackers": [], "ema": None},
        }
        config.write_text(json.dumps(content))
        words = ("-m", "salt_zoo", "train", config, "--device", "cpu", "--out", tmp_path / out)
        plugins = ("-p", plugin, "-p", "tests.heads.plugin", "-p", "tests.blocks.plugin")
        ended = PAIR.run([*map(str, words), *map(str, plugins)], SPY=str(spied))
        assert ended.code == 0, ended.err
        return tmp_path / out / "checkpoints" / f"step-{updates:06}"

    whole = trained("whole", 3)
    for step in range(3):
        zero, one = (held(spied, f"{rank}-{step}") for rank in (0, 1))
        for name, value in zero["critic"].items():
            assert torch.equal(value, one["critic"][name]), name
        assert zero["state"]["updates"] == one["state"]["updates"] == 2 * (step + 1)
        assert zero["state"]["running"] != one["state"]["running"]  # of other videos
    states = torch.load(whole / "method.pt", weights_only=True)
    assert [state["critic"]["running"] for state in states] == [
        zero["state"]["running"], one["state"]["running"]
    ]  # fmt: skip

    trained("parts", 1)
    parts = trained("parts", 3)
    assert sorted(os.listdir(parts)) == sorted(os.listdir(whole))
    for path in whole.glob("*.safetensors"):
        a, b = (safetensors.torch.load_file(folder / path.name) for folder in (whole, parts))
        assert all(torch.equal(a[key], b[key]) for key in a), path.name
    assert torch.load(parts / "method.pt", weights_only=True) == states


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)


def training_of_toys(folder, method, updates, batch=2):
    """A command whose processes, each of which imports all that it needs, do without diffusers."""
    content = {
        "method": method,
        "backbone": "toy-blocks",
        "dataset": "toy-blocks",
        "training": {"updates": updates, "batch_size": batch, "trackers": [], "ema": None},
    }
    (folder / "run.yaml").write_text(json.dumps(content))
    words = ("-m", "salt_zoo", "train", folder / "run.yaml", "--out", folder / "out")
    return [str(word) for word in (*words, "--device", "cpu", "-p", "tests.blocks.plugin")]


@pytest.mark.slow
def test_a_run_by_torchrun_ends_well(forked, tmp_path):
    """By its own agent and rendezvous: `tests/two_processes.py` stands in for them elsewhere."""
    ended = forked(*TORCHRUN, *training_of_toys(tmp_path, "teacher-forcing", 1), cwd=ROOT)
    assert ended.code == 0, ended.err
    out = tmp_path / "out"
    assert ended.out.splitlines() == [str(out / "student")]  # the first process alone speaks
    (weights,) = (out / "student").glob("*.safetensors")
    trained = safetensors.torch.load_file(weights)
    assert trained and all(value.isfinite().all() for value in trained.values())
    assert os.listdir(out / "checkpoints") == ["step-000001"]


@pytest.mark.slow
def test_torchrun_ends_both_with_one_line(forked, tmp_path):
    """Processes that it has started as a person's, each an interpreter of its own, make the same
    mistake; it ends the later one."""
    ended = forked(*TORCHRUN, *training_of_toys(tmp_path, "teacher-forcing", 1, batch=3), cwd=ROOT)
    assert ended.code != 0
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "3 cannot be split over 2 processes" in errors[0], ended.err


#: A method that fails in one process alone.
ONE_FAILS = """
import os, signal

from salt_zoo import hookimpl
from salt_zoo_flow_matching.method import TeacherForcing


class Fails(TeacherForcing):
    def train(self, step):
        logs = super().train(step)
        if step.index == 1 and os.environ["RANK"] == "1":
            if os.environ["HOW"] == "nan":
                logs = {name: value * float("nan") for name, value in logs.items()}
            elif os.environ["HOW"] == "memory":
                raise MemoryError
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return logs


@hookimpl
def register(zoo):
    zoo.methods.add("fails", Fails, "fails in one process")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "by_torchrun", "said"),
    [
        ("memory", True, "not enough memory"),
        ("kill", False, "another process of this run has ended unexpectedly"),
    ],
)
def test_what_ends_one_process_ends_all_with_one_line(how, by_torchrun, said, forked, tmp_path):
    """Also by torchrun's own agent, here of forks: `launch` ends others as it does."""
    plugin = tmp_path / "fails.py"
    plugin.write_text(ONE_FAILS)
    command = [*training_of_toys(tmp_path, "fails", 4), "-p", str(plugin)]
    if by_torchrun:
        agent = ("-m", "tests.training.torchrun_of_forks")
        ended = forked(*agent, *command, environment={"HOW": how}, cwd=ROOT)
    else:
        ended = launch(command, HOW=how)
    assert ended.code != 0
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0], ended.err


STUDY = """
name: mini
title: Mini
base:
  backbone: {name: wan, size: test-tiny}
  dataset: digits
  training: {updates: 2, batch_size: 2, trackers: [], ema: null}
arms:
  a: {method: consistency}
  b: {method: {name: dmd, steps: 2, fake_score: {updates: 1}}}
  c: {method: fails}
evaluation:
  {prompts: 2, nfe: [1], metrics: [digits-motion], shown: 1, teacher: {steps: 1}}
"""


@pytest.mark.slow
def test_a_study_of_two_processes(tmp_path):
    """Several trainings one after the other, one of which fails; the first process alone writes,
    measures and speaks."""
    study, plugin, out = tmp_path / "mini.yaml", tmp_path / "fails.py", tmp_path / "out"
    study.write_text(STUDY)
    plugin.write_text(ONE_FAILS)
    plugins = ("-p", plugin, "-p", "tests.sizes.plugin")
    words = ("-m", "benchmarks.run", study, "--device", "cpu", *plugins, "--out", out)
    ended = PAIR.run([*map(str, words)], HOW="nan")
    lines = ended.err.splitlines()
    assert [line for line in lines if line.startswith("done: ")] == [
        "done: real (1 of 7)",
        "done: teacher (2 of 7)",
        "done: teacher-naive (3 of 7)",
        "done: teacher-guided (4 of 7)",
        "done: a-seed0 (5 of 7)",
        "done: b-seed0 (6 of 7)",
    ], ended.err
    assert len([line for line in lines if "update 2: student/loss is nan" in line]) == 1
    assert ended.out.splitlines() == [str(out / "index.html")]
    results = json.loads((out / "results.json").read_text())
    assert [len(arm["seeds"]) for arm in results["arms"]] == [1, 1, 0]
    assert not [path for path in out.rglob(".*")]
