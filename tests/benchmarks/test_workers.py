"""All processes of a study end with it, even where it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from benchmarks.workers import _queue, _start

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with _queue(context) as messages:
        options = ([], 1, "cpu", messages)
        pool = ProcessPoolExecutor(1, context, initializer=_start, initargs=options)
        pool.submit(os.getpid).result()
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_everything_ends_when_a_study_is_killed(tmp_path: Path, end: signal.Signals):
    script = tmp_path / "study.py"
    script.write_text(PARENT, encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    study = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert study.stdout is not None
    children = [int(number) for number in study.stdout.readline().split()]
    assert len(children) == 2  # the worker, and the queue's
    study.send_signal(end)
    study.wait()
    for _ in range(60):
        if not any(map(alive, children)):
            return
        time.sleep(0.5)
    raise AssertionError("a process goes on without its study")


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and not been waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
