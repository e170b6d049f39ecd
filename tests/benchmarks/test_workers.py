"""Workers of a study end with it, even where it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from benchmarks.workers import _start

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=_start, initargs=([], 1, "cpu", None))
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


def test_a_worker_ends_when_its_study_is_killed(tmp_path: Path):
    script = tmp_path / "study.py"
    script.write_text(PARENT, encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    study = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert study.stdout is not None
    worker = int(study.stdout.readline())
    study.send_signal(signal.SIGKILL)
    study.wait()
    for _ in range(60):
        if not alive(worker):
            return
        time.sleep(0.5)
    raise AssertionError("the worker goes on without its study")


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and not been waited for does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
