"""Commands in processes of their own that need not import torch first: forks of one that has.

Importing what a training needs takes about five seconds of a core, most of what many a command
takes. What is about imports, or a variable that a library reads as it is imported, has an
interpreter of its own (the fixture `shell`). torchrun is a fork, which gives its processes
interpreters of their own (`tests/training/test_distributed.py`) except in
`tests/training/torchrun_of_forks.py`, where its agent forks them.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
#: A module that imports others.
PRELOADED = "tests.preloaded"
CONTEXT.set_forkserver_preload([PRELOADED])


class Forked:
    """A command that runs: what `subprocess.Popen` is to one with an interpreter of its own.

    Attributes:
        words: what `python` is given: `-m module argument ...`, or `script.py argument ...`.
    """

    def __init__(
        self,
        *words: object,
        environment: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        """`environment` is added to this process's."""
        self.words = [str(word) for word in words]
        self._streams = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        _start_server()
        self._process = CONTEXT.Process(
            target=_become,
            args=(
                self.words,
                {**os.environ, **(environment or {})},
                str(cwd or os.getcwd()),
                *(DupFd(stream.fileno()) for stream in self._streams),
            ),
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float = 300) -> int:
        """Its exit code; negative for a signal."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.words, timeout)
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it has written when it has ended."""
        self.wait(timeout)
        for stream in self._streams:
            stream.seek(0)
        out, err = (stream.read() for stream in self._streams)
        return out, err


def _start_server() -> None:
    """With this checkout's modules, of which it has imported those of `PRELOADED`."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [before])])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _become(words: list[str], environment: dict[str, str], cwd: str, out: Any, err: Any) -> None:
    """What the interpreter does between its start and its end."""
    assert PRELOADED in sys.modules, f"{PRELOADED} cannot be imported"  # the server says nothing
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, stream in ((1, out), (2, err)):
        os.dup2(stream.detach(), number)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[:0] = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    code: int | None = 1
    try:
        code = run_words(words)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = None
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    os._exit(code or 0)


def run_words(words: list[str]) -> int:
    """What `python` is given, in this process, and with its exit code."""
    first, *rest = words
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
