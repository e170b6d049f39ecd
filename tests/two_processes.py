"""Runs scripts and commands of the tests in two (or more) real processes of one gloo group.

They are forks of a process that has imported torch (`tests/forked.py`), with the variables and the
store that torchrun gives, and end each other as it does. A pair of them serves a whole session, as
long as nothing fails in it; what is about torchrun itself is launched by it
(`tests/training/test_distributed.py`).
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.forked import Forked

ROOT = Path(__file__).resolve().parents[1]
#: Seconds in which the second process exits with an error that the first one, too, exits with, and
#: in which one that is asked to end does.
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


def launch(words: list[str], timeout: float = 1500, processes: int = 2, **variables: str) -> Said:
    """What `python` is given, in processes of its own; one that fails ends the others."""
    store = new_store()
    started = start(words, store.port, processes, **variables)
    until = time.monotonic() + timeout
    while any(process.poll() is None for process in started):
        if any(process.poll() for process in started) or time.monotonic() > until:
            break
        time.sleep(0.02)
    return said_by(started)


def new_store() -> Any:
    """At which the processes of a group meet, as at torchrun's."""
    import torch.distributed as distributed

    return distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
    )


def start(words: list[str], port: int, processes: int, **variables: str) -> list[Forked]:
    """What `python` is given, in each of the processes of a group, with torchrun's variables."""
    common = {
        **environment(),
        **{name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        **variables,
    }
    return [
        Forked(*words, environment={**common, "RANK": rank, "LOCAL_RANK": rank}, cwd=ROOT)
        for rank in map(str, range(processes))
    ]


def said_by(processes: list[Forked]) -> Said:
    """Of processes that have all ended, or that end now, since one has failed or takes too long."""
    failed = any(process.poll() != 0 for process in processes)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        time.sleep(0.02)
    for process in processes:
        process.kill()
    said = [process.communicate() for process in processes]
    return Said(int(failed), "".join(out for out, _ in said), "".join(err for _, err in said))


class Pair:
    """Two processes that run one job after the other, in one process group.

    They wait at a store of this process, so they also end where it is killed.
    """

    def __init__(self) -> None:
        self.processes: list[Forked] = []

    def run(self, words: list[str], timeout: float = 1500, **variables: str) -> Said:
        """What `python` is given: `script.py argument ...` or `-m module argument ...`.

        A process that raises, dies, or exits alone with an error ends both, and the next job has
        new ones.
        """
        if not self.processes:
            self._start()
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
            if any(process.poll() is not None for process in self.processes):
                return self._failed(folder)
            codes = [int(self.store.get(key)) for key in done if self.store.check([key])]
            if any(codes):  # torchrun would end the other now
                until = min(until, time.monotonic() + PATIENCE)
            if time.monotonic() > until:
                said = f"{words} takes more than {timeout} s, or one of two processes has failed\n"
                return self._failed(folder, said)
        codes = [int(self.store.get(key)) for key in done]
        return Said(max(codes), _read(folder, "out"), _read(folder, "err"))

    def end(self) -> None:
        """Let both processes end."""
        if self.processes:
            self.store.set(f"job-{self.jobs}", "")
            for process in self.processes:
                process.wait(60)
            self.processes = []

    def _failed(self, folder: Path, why: str = "") -> Said:
        """Both end. What they have said in the job, and outside of jobs."""
        outside = said_by(self.processes)
        self.processes = []
        return Said(1, _read(folder, "out"), _read(folder, "err") + outside.err + why)

    def _start(self) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="pair-")
        self.folder, self.jobs, self.started = Path(self.temporary.name), 0, environment()
        self.store = new_store()
        script = Path(__file__).with_name("process_of_pair.py")
        self.processes = start([str(script)], self.store.port, 2)


def _read(folder: Path, stream: str) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob(f"{stream}-*")))


#: That of the session; `tests/conftest.py` ends it.
PAIR = Pair()
