"""Runs scripts and commands of the tests in two (or more) real processes (torchrun, gloo).

A launch costs more than most of what is run, so one pair of processes serves a whole session, as
long as nothing fails in it. What is about the launch, or the end, of processes has its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Seconds in which the second process exits with an error that the first one, too, exits with.
PATIENCE = 30.0


def environment() -> dict[str, str]:
    """This process's, in which `tests` can be imported."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@dataclass(frozen=True)
class Said:
    """How processes ended, and what all of them wrote."""

    code: int
    out: str
    err: str


def run_in_two_processes(
    script: Path, argument: Path, timeout: float = 1500, processes: int = 2
) -> str:
    """What all wrote to standard output; a failure shows the end of their errors."""
    words = [str(script), str(argument)]
    done = PAIR.run(words, timeout) if processes == 2 else launch(words, timeout, processes)
    assert done.code == 0, done.err[-3000:]
    return done.out


def launch(words: list[str], timeout: float = 1500, processes: int = 2) -> Said:
    """What `python` is given, in processes of its own."""
    done = subprocess.run(
        [*torchrun(processes), *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=environment(),
    )
    return Said(done.returncode, done.stdout, done.stderr)


def torchrun(processes: int) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc_per_node", str(processes)),
    ]


class Pair:
    """Two processes of torchrun that run one job after the other, in one process group.

    They wait at a store of this process, so they also end where it is killed.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, words: list[str], timeout: float = 1500, **variables: str) -> Said:
        """What `python` is given: `script.py argument ...` or `-m module argument ...`.

        A process that raises, dies, or exits alone with an error ends both, and the next job has
        new ones.
        """
        if self.process is None:
            self._start()
        assert self.process is not None
        folder = self.folder / f"job-{self.jobs}"
        folder.mkdir()
        now = {**environment(), **variables}
        changed = {name: value for name, value in now.items() if self.started.get(name) != value}
        job: dict[str, Any] = {
            "words": words,
            "folder": str(folder),
            "changed": changed,
            "removed": [*(self.started.keys() - now.keys())],
        }
        self.store.set(f"job-{self.jobs}", json.dumps(job))
        done = [f"done-{self.jobs}-{rank}" for rank in range(2)]
        self.jobs += 1
        until = time.monotonic() + timeout
        while not self.store.check(done):
            time.sleep(0.02)
            if self.process.poll() is not None:
                code = self.process.returncode
                self.process = None
                return Said(code or 1, _read(folder, "out"), _read(folder, "err") + self._log())
            codes = [int(self.store.get(key)) for key in done if self.store.check([key])]
            if any(codes):  # torchrun would end the other now
                until = min(until, time.monotonic() + PATIENCE)
            if time.monotonic() > until:
                self.kill()
                said = f"{words} takes more than {timeout} s, or one of two processes has failed\n"
                return Said(1, _read(folder, "out"), _read(folder, "err") + said)
        codes = [int(self.store.get(key)) for key in done]
        return Said(max(codes), _read(folder, "out"), _read(folder, "err"))

    def end(self) -> None:
        """Let both processes end."""
        if self.process is not None:
            self.store.set(f"job-{self.jobs}", "")
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def kill(self) -> None:
        """End torchrun, and so the two."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _start(self) -> None:
        import torch.distributed as distributed

        self.temporary = tempfile.TemporaryDirectory(prefix="pair-")
        self.folder, self.jobs, self.started = Path(self.temporary.name), 0, environment()
        self.store = distributed.TCPStore(
            "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
        )
        script = Path(__file__).with_name("process_of_pair.py")
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [*torchrun(2), str(script), str(self.store.port)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=self.started,
            )

    def _log(self) -> str:
        """What torchrun has said, and the processes outside of jobs."""
        return (self.folder / "log").read_text(errors="replace")


def _read(folder: Path, stream: str) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob(f"{stream}-*")))


#: That of the session; `tests/conftest.py` ends it.
PAIR = Pair()
