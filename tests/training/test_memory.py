"""Planned memory against what a training allocates, as torch's profiler counts it."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from salt_zoo.config.run import Resolved, resolve
from salt_zoo.planning.plan import GIB, plan_run
from salt_zoo.training.launch import train
from tests.training.memory_runs import held_run, memory_run
from tests.two_processes import run_in_two_processes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sizes_zoo():
    from salt_zoo.plugin.manager import load_zoo

    return load_zoo(["tests.sizes.plugin"])


def allocated(run: Resolved, folder: Path, zoo: Any) -> int:
    """Bytes that a training holds at its fullest moment."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # what earlier tests have left would be freed inside, as less than nothing
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        train(run, folder, zoo, "cpu")
    now = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


CHECKPOINTING = {"micro_batch": 2, "gradient_checkpointing": True}


# each way to pass a batch is there once; what is kept of a pass is the network's, not the method's
@pytest.mark.parametrize(
    ("method", "execution", "size"),
    [
        pytest.param("consistency", {}, "small", id="whole"),
        # of six blocks: a plan leaves out what the teacher's guided pass needs for a moment beside
        # the student's kept activations; at two blocks that is a fifth of the peak
        pytest.param("dmd", {"micro_batch": 1}, "large", id="micro-batch-dmd"),
        pytest.param("dmd", CHECKPOINTING, "small", id="checkpointing-dmd"),
    ],
)
def test_planned_memory_is_what_is_allocated(method, execution, size, sizes_zoo, tmp_path):
    run = resolve(memory_run(method, execution, size), sizes_zoo, "test")
    plan = plan_run(run, sizes_zoo, "cpu")
    measured = allocated(run, tmp_path, sizes_zoo) / GIB
    assert plan.peak == pytest.approx(measured, rel=0.1)


def test_a_pass_with_a_time_a_frame_keeps_its_modulations(sizes_zoo, tmp_path):
    """Which are a fourth of what a masked pass keeps: one for every token, of every block."""
    content = memory_run("teacher-forcing", {"micro_batch": 2})
    content["backbone"] |= {"name": "self-forcing", "memory": "window"}
    run = resolve(content, sizes_zoo, "test")
    measured = allocated(run, tmp_path, sizes_zoo) / GIB
    assert plan_run(run, sizes_zoo, "cpu").peak == pytest.approx(measured, rel=0.1)


def test_a_sharded_process_holds_what_is_planned(sizes_zoo, tmp_path):
    """Weights and optimizer states that each of two processes keeps, to the byte. What a pass
    gathers is not compared: gloo gives its buffers back when it likes."""
    file = tmp_path / "held"
    run_in_two_processes(Path(__file__).parent / "memory_runs.py", file, timeout=300)
    run = resolve(held_run(2), sizes_zoo, "test")
    plan = plan_run(run, sizes_zoo, "cpu", processes=2)
    for rank in range(2):
        held = json.loads(Path(f"{file}-{rank}.json").read_text())
        assert held.keys() == {name.removeprefix("weights ") for name in plan.memory
                               if name.startswith("weights ")}  # fmt: skip
        for role, (weights, states) in held.items():
            # the planned process is the first; the others' last rows may be fewer
            assert weights <= plan.memory[f"weights {role}"] * GIB
            if rank == 0:
                assert weights == pytest.approx(plan.memory[f"weights {role}"] * GIB)
                assert states == pytest.approx(plan.states.get(role, 0.0) * GIB)
    whole = plan_run(resolve(held_run(1), sizes_zoo, "test"), sizes_zoo, "cpu")
    assert plan.memory["weights student"] < 0.51 * whole.memory["weights student"]
