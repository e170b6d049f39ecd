"""A process of a study costs its own job at most, and none outlives the study."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks.run import main
from benchmarks.runner.workers.pool import _begin
from benchmarks.runner.workers.processes import AGAIN, run_tasks
from tests.benchmarks.fates import begin, broken

ROOT = Path(__file__).resolve().parents[2]


def started() -> set[Any]:
    """Processes of this one, other than those of `tests/forked.py`, which end with the session."""
    kind = multiprocessing.get_context("forkserver").Process
    return {one for one in multiprocessing.active_children() if not isinstance(one, kind)}


def run(folder: Path, *tasks: str, processes: int = 2):
    told: list[tuple[int, str]] = []
    results = run_tasks(
        tasks, functools.partial(begin, folder), processes, lambda i, *t: told.append((i, t[-1]))
    )
    assert not started()
    return results, told


def test_each_task_meets_its_own_fate(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    tasks = ["a:dies", "b", "c:exits", "d:crosses", "e:leaves", "f:interrupts", "g:cannot tell"]
    tasks += ["h:dies once", "i"]
    results, told = run(tmp_path, *tasks)
    errors = [result.error for result in results]
    assert errors == [
        "its process was ended by SIGKILL, twice; the machine may lack memory",
        None,
        "its process ended by itself with exit code 0, twice",
        "its process was ended by SIGSEGV, twice",
        "SystemExit: 0",
        "KeyboardInterrupt: no reason given",
        "Mute: its message cannot be shown (ValueError)",
        None,
        None,
    ]
    assert [results[place].value for place in (1, 7, 8)] == ["b", "h", "i"]
    ends = [(place, what) for place, what in told if what != "working"]
    assert {place for place, what in ends if what == AGAIN} == {0, 2, 3, 7}
    order = [place for place, what in ends if what != AGAIN]
    assert set(order[-4:]) == {0, 2, 3, 7}
    output = capfd.readouterr()
    assert output.out == ""
    assert "belongs" in output.err


def test_a_task_that_always_dies_does_not_stand_before_others(tmp_path: Path):
    results, told = run(tmp_path, "a:dies", "b", "c", processes=1)
    assert [result.value for result in results] == [None, "b", "c"]
    assert [what for _, what in told if what != "working"] == [AGAIN, "done", "done", "failed"]


def test_processes_go_on_with_the_next_task_unless_one_failed(tmp_path: Path):
    results, _ = run(tmp_path, "a:collects", "b", "c:leaves", "d", processes=1)
    a, b, c, d = ((tmp_path / name).read_text().split() for name in "abcd")
    assert a == b == c != d
    assert results[0].value == (True, True)  # garbage, and not what was imported


STUDY = {
    "name": "mini",
    "title": "Mini",
    "base": {
        "backbone": "toy-blocks",
        "dataset": "toy-blocks",
        "training": {"updates": 1, "batch_size": 2, "trackers": [], "ema": None},
    },
    "arms": {"good": {"method": "teacher-forcing"}, "bad": {"method": "fails"}},
    "evaluation": {"prompts": 2, "nfe": [1], "metrics": ["motion-magnitude"], "shown": 1},
}

FAILS = """
from salt_zoo import hookimpl
from salt_zoo_flow_matching.method import TeacherForcing

class Fails(TeacherForcing):
    def train(self, turn):
        raise RuntimeError("this method cannot work")

@hookimpl
def register(zoo):
    zoo.methods.add("fails", Fails, "a method that always fails")
"""


def test_a_study_with_processes_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The command, with plugins that they load by themselves: one of a path below its folder."""
    monkeypatch.chdir(tmp_path)
    Path("fails.py").write_text(FAILS)
    Path("mini.yaml").write_text(yaml.safe_dump(STUDY))
    code = main(["mini.yaml", "--out", "out", "-p", "tests.blocks.plugin", "-p", "fails.py"])
    results = json.loads(Path("out/results.json").read_text())
    assert {row["arm"] for row in results["rows"]} >= {"good", "real"}
    assert "this method cannot work" in str(results) and "bad" not in str(results["rows"])
    said = capfd.readouterr()
    assert code == 1 and "Traceback" not in said.err and not started()
    assert said.out.splitlines() == ["out/index.html"]


def test_code_that_exits_costs_what_it_was_at(monkeypatch: pytest.MonkeyPatch):
    """A metric, for instance; else its process would die, and with it the whole job."""
    monkeypatch.setattr("benchmarks.runner.jobs.execution.run_job", lambda *job: os._exit(3))
    do = _begin((), 1, "cpu")
    with pytest.raises(SystemExit, match=r"os._exit\(3\)"):
        do(None, lambda *told: None)


def test_what_a_task_has_started_ends_with_its_process(tmp_path: Path):
    """Data loaders, for instance."""
    ((result,), _) = run(tmp_path, "a:forks")
    until = time.monotonic() + 20
    while runs(result.value) and time.monotonic() < until:
        time.sleep(0.05)
    assert not runs(result.value)


def runs(process: int) -> bool:
    """A zombie waits to be buried by whoever has inherited it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_foreign_code_has_started_ends_with_a_study_that_is_stopped(tmp_path: Path):
    """Also what no library keeps a list of, in a task that is at work."""
    started: list[int] = []

    def show(index, done, of, what):
        if what.isdecimal():
            started.append(int(what))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks(["a:is stopped"], functools.partial(begin, tmp_path), 1, show)
    until = time.monotonic() + 20
    while runs(started[0]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not runs(started[0])


def test_what_cannot_begin_fails_every_task(tmp_path: Path):
    start = functools.partial(broken, "no plugin")
    results = run_tasks(["a", "b"], start, 1, lambda *progress: None)
    assert [result.error for result in results] == ["RuntimeError: no plugin"] * 2


def test_an_error_of_the_caller_ends_the_processes(tmp_path: Path):
    def show(*told):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks(["a", "b:dies"], functools.partial(begin, tmp_path), 2, show)
    assert not started()


PARENT = """
import multiprocessing, os, sys, time
from benchmarks.runner.workers.processes import run_tasks

def begin():
    return do

def do(task, tell):
    tell(os.getpid(), 0, "")
    time.sleep(60)

if __name__ == "__main__":
    run_tasks(["a", "b"], begin, 2, lambda index, pid, *told: print(pid, flush=True))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_everything_ends_when_a_study_is_killed(tmp_path: Path, end: signal.Signals):
    script = tmp_path / "study.py"
    script.write_text(PARENT, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    study = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert study.stdout is not None
    children = [int(study.stdout.readline()) for _ in range(2)]
    study.send_signal(end)
    study.wait()
    while any(map(alive, children)):  # the suite's limit ends this where it fails
        time.sleep(0.1)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and not been waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(("asked", "given", "used"), [(1, 4, 1), (3, 2, 2)])
def test_no_more_threads_than_are_asked_for(asked, given, used):
    """torch takes OMP_NUM_THREADS where a process starts."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(asked)
        _begin((), given, "cpu")
        assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)
