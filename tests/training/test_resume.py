"""A resumed run equals an uninterrupted one, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.forked import Forked

KILLER = """
import os, signal
from salt_zoo import hookimpl

@hookimpl
def step_finished(step, logs):
    if step == 3 and os.environ.get("KILL_ME"):
        os.kill(os.getpid(), signal.SIGKILL)
"""

# one role; several roles and turns, with a term that is due by draw; an average of the method's own
METHODS = {
    "teacher-forcing": {},
    "sc-dmd": {
        "steps": 3,
        "fake_score": {"updates": 2},
        "objectives": {"self-consistency": {"steps": 3}},
    },
    "consistency": {},
}


class Stopped(Exception):
    pass


def stop_at(last: int):
    def progress(step, updates, logs):
        if step == last:
            raise Stopped

    return progress


def assert_equal_checkpoints(one: Path, other: Path) -> None:
    """Weights, optimizer states and all else but the times are the same, bit by bit."""
    assert sorted(os.listdir(one)) == sorted(os.listdir(other))
    for path in sorted(one.glob("*.safetensors")):
        a, b = (safetensors.torch.load_file(folder / path.name) for folder in (one, other))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), path.name
    a, b = (torch.load(folder / "optimizers.pt", weights_only=True) for folder in (one, other))
    assert_equal(a, b)
    a, b = (json.loads((folder / "state.json").read_text()) for folder in (one, other))
    for state in (a, b):
        del state["seconds"], state["digest"]
        for entry in state["history"]:
            del entry["seconds"]
    assert a == b


def assert_equal(a, b) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("method", METHODS)
def test_stopped_between_checkpoints(method, train, tmp_path):
    changes = {"method": {"name": method, **METHODS[method]}, "training": {"updates": 5}}
    changes["execution"] = {"micro_batch": 1}
    train(tmp_path / "whole", **changes)
    with pytest.raises(Stopped):
        train(tmp_path / "parts", progress=stop_at(3), **changes)
    assert os.listdir(tmp_path / "parts" / "checkpoints") == ["step-000002"]
    resumed = train(tmp_path / "parts", **changes).history[2:]
    assert len(resumed) == 3
    if method == "sc-dmd":
        assert any("student/self_consistency" in logs for logs in resumed)
    assert_equal_checkpoints(
        tmp_path / "whole" / "checkpoints" / "step-000005",
        tmp_path / "parts" / "checkpoints" / "step-000005",
    )


def test_every_optimizer_schedule_and_average(train, tmp_path):
    training = {
        "updates": 5,
        "optimizers": {"student": {"name": "muon"}},
        "schedule": {"warmup": 1, "decay_from": 0.4},
        "ema": {"start": 3},
    }
    train(tmp_path / "whole", training=training)
    with pytest.raises(Stopped):
        train(tmp_path / "parts", progress=stop_at(3), training=training)
    train(tmp_path / "parts", training=training)
    assert_equal_checkpoints(
        tmp_path / "whole" / "checkpoints" / "step-000005",
        tmp_path / "parts" / "checkpoints" / "step-000005",
    )


def test_killed_for_real(write_run, train, forked, tmp_path):
    plugin, out = tmp_path / "killer.py", tmp_path / "parts"
    plugin.write_text(KILLER)
    command = ("-m", "salt_zoo", "train", write_run(), "--out", out, "--device", "cpu")
    plugins = ("-p", plugin, "-p", "tests.sizes.plugin")
    killed = forked(*command, *plugins, environment={"KILL_ME": "1"})
    assert killed.code == -signal.SIGKILL
    assert os.listdir(out / "checkpoints") == ["step-000002"]
    half_written = out / "checkpoints" / ".step-000004.0badcafe.part"
    half_written.mkdir()  # as if it had been killed a little later
    train(out)
    train(tmp_path / "whole")
    assert_equal_checkpoints(
        tmp_path / "whole" / "checkpoints" / "step-000004", out / "checkpoints" / "step-000004"
    )
    assert sorted(os.listdir(out / "checkpoints")) == ["step-000002", "step-000004"]


@pytest.mark.slow
def test_interrupted_by_the_user(write_run, train, tmp_path):
    out = tmp_path / "out"
    config = write_run(training={"updates": 100_000, "checkpoint_every": 1, "log_every": 1})
    command = ("-m", "salt_zoo", "train", config, "--out", out, "--device", "cpu")
    process = Forked(*command, "-p", "tests.sizes.plugin")
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob("checkpoints/step-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(60)
    finally:
        process.kill()
    assert (process.returncode, said) == (130, "")
    begun, *ended = error.splitlines()
    assert begun.startswith("note: training teacher-forcing for 100000 student updates")
    assert ended == ["interrupted; run the same command again to resume"]
    assert not [name for name in os.listdir(out / "checkpoints") if name.startswith(".")]
    done = max(int(name.removeprefix("step-")) for name in os.listdir(out / "checkpoints"))

    steps = []

    def progress(step, updates, logs):
        steps.append(step)
        raise Stopped

    with pytest.raises(Stopped):
        train(out, progress=progress, training={"updates": 100_000, "checkpoint_every": 1})
    assert steps == [done + 1]


def test_only_the_newest_checkpoints_are_kept(train, tmp_path):
    train(tmp_path, training={"updates": 5, "checkpoint_every": 1})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-000004", "step-000005"]


def test_checkpoints_are_ordered_by_their_number(tmp_path):
    from salt_zoo.training.checkpoints.checkpoint import checkpoints

    for name in ("step-999999", "step-1000000", "step-000002", "step-x", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").touch()
    (tmp_path / "step-2000000").mkdir()  # without a state: not whole
    assert [path.name for path in checkpoints(tmp_path)] == [
        "step-000002",
        "step-999999",
        "step-1000000",
    ]
