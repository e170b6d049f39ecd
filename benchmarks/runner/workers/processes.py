"""Tasks side by side in processes of their own, none of which can harm another task.

A process that dies (killed, out of memory, a segmentation fault, `os._exit`) costs the task that it
was at. Such a task is tried once more when all others have ended, alone, since what killed it may
have been the others' need of memory. A process whose task failed is replaced: what the task had
left there (memory, settings) ends with it.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from salt_zoo.io.threads import threads_told
from salt_zoo.plugin.isolation.foreign import explain, show_traceback

#: What a task tells of its progress: (done, in all, what is being done).
Tell = Callable[[int, int, str], None]
#: Does one task in a process and returns what can be sent back.
Do = Callable[[Any, Tell], Any]
#: Seconds that a process has to end by itself.
GRACE = 3.0
#: What `show` receives when a task's process died and the task is to be tried again.
AGAIN = "again"


@dataclass(frozen=True)
class Result:
    """How a task ended: with `value`, or with the line `error`."""

    value: Any = None
    error: str | None = None


def run_tasks(
    tasks: Sequence[Any],
    begin: Callable[[], Do],
    processes: int,
    show: Callable[[int, int, int, str], None],
) -> list[Result]:
    """The results of `tasks`, in their order.

    Args:
        tasks: anything that can be pickled.
        begin: called once in each process; returns what does a task there. A module's function, or
            a partial of one.
        processes: how many at a time.
        show: receives the progress of task `index` (done, in all, what); at the end `what` is
            "done" or "failed", and `AGAIN` where its process died.
    """
    results: list[Result | None] = [None] * len(tasks)
    first, second = deque(range(len(tasks))), deque[int]()
    crew: list[_Worker] = []
    try:
        while first or second or any(worker.task is not None for worker in crew):
            _hand_out(tasks, first, second, begin, processes, crew, results, show)
            for worker in _with_news(crew):
                index = worker.task
                try:
                    # a process of its own may hold the pipe of a dead one open
                    message = worker.connection.recv() if worker.connection.poll() else None
                except Exception:  # its end was closed, perhaps in the middle of a message
                    message = None
                if message is None:
                    worker.end()
                    crew.remove(worker)
                    if index is None:
                        continue
                    if worker.retry:
                        results[index] = Result(error=worker.cause())
                        show(index, 1, 1, "failed")
                    else:
                        second.append(index)
                        show(index, 0, 1, AGAIN)
                    continue
                if index is None:
                    continue
                if isinstance(message, Result):
                    results[index] = message
                    worker.task = None
                    show(index, 1, 1, "failed" if message.error else "done")
                    if message.error:
                        worker.end()
                        crew.remove(worker)
                else:
                    show(index, *message)
    finally:
        for worker in crew:
            worker.connection.close()
        for worker in crew:
            worker.end()
    return [result or Result(error="was not done") for result in results]


def _hand_out(
    tasks: Sequence[Any],
    first: deque[int],
    second: deque[int],
    begin: Callable[[], Do],
    processes: int,
    crew: list[_Worker],
    results: list[Result | None],
    show: Callable[[int, int, int, str], None],
) -> None:
    """Give every idle process a task, and start processes while there is room for more."""
    while first or second:
        busy = sum(worker.task is not None for worker in crew)
        if busy >= (processes if first else 1):  # what died once is done alone
            return
        retry = not first
        index = (second if retry else first).popleft()
        idle = [worker for worker in crew if worker.task is None]
        try:
            worker = idle[0] if idle else _Worker(begin)
        except OSError as error:  # the machine has no room for another process
            if not busy:
                results[index] = Result(error=f"no process could be started ({explain(error)})")
                show(index, 1, 1, "failed")
                continue
            (second if retry else first).appendleft(index)
            return
        if not idle:
            crew.append(worker)
        worker.give(index, tasks[index], retry)


def _with_news(crew: list[_Worker]) -> list[_Worker]:
    """Those that sent something, or died; waits for a second at most."""
    ready = wait([worker.connection for worker in crew], timeout=1.0) if crew else []
    return [
        worker for worker in crew if worker.connection in ready or not worker.process.is_alive()
    ]


class _Worker:
    """A process, and the task that it is at."""

    def __init__(self, begin: Callable[[], Do]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.task: int | None = None
        self.retry = False
        arguments = (theirs, os.getpid(), begin)
        self.process: BaseProcess = context.Process(target=_serve, args=arguments, daemon=False)
        try:
            self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()

    def give(self, index: int, task: Any, retry: bool) -> None:
        self.task, self.retry = index, retry
        with contextlib.suppress(OSError):  # it is dead, which the next look at it will find
            self.connection.send(task)

    def end(self) -> None:
        """See to it that the process is gone, and what foreign code has started there."""
        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):  # it is gone already
            started = psutil.Process(self.process.pid).children(recursive=True)
        self.connection.close()
        if self.task is None:  # it ends by itself when nobody talks to it
            self.process.join(GRACE)
        for stop in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                stop()
                self.process.join(GRACE)
        self.process.join()
        for child in started:
            with contextlib.suppress(psutil.Error):
                child.kill()

    def cause(self) -> str:
        """Why the process ended before its task did, twice."""
        code = self.process.exitcode
        if code is not None and code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            hint = "; the machine may lack memory" if name == "SIGKILL" else ""
            return f"its process was ended by {name}, twice{hint}"
        return f"its process ended by itself with exit code {code}, twice"


def _serve(connection: Connection, parent: int, begin: Callable[[], Do]) -> None:
    """A process's own life: one task after another until nobody talks to it any more."""
    follow(parent)
    # Ctrl-C goes to every process of a terminal, and the first one decides what it means; a
    # handler and not SIG_IGN, which programs that a task starts would inherit
    signal.signal(signal.SIGINT, lambda number, frame: None)
    os.dup2(2, 1)  # standard output belongs to the command, whatever foreign code prints
    with threads_told():
        _answer(connection, begin)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    for child in multiprocessing.active_children():  # of foreign code, such as loaders of data
        child.terminate()
    os._exit(0)  # threads that foreign code left keep no process alive


def _answer(connection: Connection, begin: Callable[[], Do]) -> None:
    """Do one task after another until nobody asks any more."""
    do: Do | None = None
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            break
        try:
            if do is None:
                do = _begun(begin)
            result = Result(value=do(task, lambda *progress: connection.send(progress)))
        except BaseException as error:  # sys.exit() as well: it ends a task and nothing else
            show_traceback(error)
            result = Result(error=explain(error))
        try:
            connection.send(result)
        except OSError:
            break


def _begun(begin: Callable[[], Do]) -> Do:
    """What a process imports lives as long as it does: no collection of garbage need look at it,
    neither meanwhile (half a second of a core) nor between tasks."""
    gc.disable()
    try:
        return begin()
    finally:
        gc.freeze()
        gc.enable()


def follow(parent: int) -> None:
    """Let this process end with `parent`: one that was killed cannot end its workers, which would
    go on with the whole study."""
    threading.Thread(target=_end_without, args=(parent,), daemon=True).start()


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # what was done so far is on disk
