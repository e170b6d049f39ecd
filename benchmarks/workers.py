"""Doing the jobs of a study side by side, each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

from benchmarks.jobs import Job
from salt_zoo.errors import ZooError

_shared: dict[str, Any] = {}


def count_workers(wanted: int, device: str, jobs: int) -> int:
    """How many processes: on a CPU one a core (one thread each), on CUDA one."""
    if wanted == 0:
        wanted = 1 if device.startswith("cuda") else len(os.sched_getaffinity(0))
    return max(1, min(wanted, jobs))


def _start(plugins: Sequence[str], threads: int, device: str, messages: Any) -> None:
    """Runs once in each worker."""
    import torch

    from salt_zoo.plugins import load_zoo

    _follow()
    torch.set_num_threads(threads)
    _shared.update(zoo=load_zoo(plugins), device=device, messages=messages)


def _follow() -> None:
    """Let this process end with its parent: one that was killed cannot end its workers, which would
    go on with the whole study."""
    threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()


def _end_without(parent: int) -> None:
    """End this process once `parent` is gone; what was done so far is on disk."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextlib.contextmanager
def _queue(context: Any) -> Iterator[Any]:
    """A queue for the messages of workers, in a process of its own."""
    manager = SyncManager(ctx=context)
    manager.start(_follow)
    with manager:
        yield manager.Queue()


def _do(index: int, job: Job) -> str | None:
    """Do one job in a worker; returns the error that ended it."""
    from benchmarks.jobs import run_job

    def progress(step: int, updates: int, what: str) -> None:
        _shared["messages"].put((index, step, updates, what))

    try:
        run_job(job, _shared["zoo"], _shared["device"], progress)
    except ZooError as error:
        return str(error)
    except Exception as error:  # a method's bug is a row of the report, not the end of the study
        text = " ".join(str(error).split())[:300]
        return f"{type(error).__name__}: {text}"
    return None


def run_jobs(
    jobs: Sequence[Job], plugins: Sequence[str], device: str, workers: int, show: Any
) -> dict[Path, str]:
    """Do all jobs and return the errors of those that failed, by folder.

    `show(index, step, updates, what)` is told of the progress of job `index`; `what` is
    "done" or "failed" at its end.
    """
    errors: dict[Path, str] = {}
    waiting = [(index, job) for index, job in enumerate(jobs) if not job.done]
    for index, job in enumerate(jobs):
        if job.done:
            show(index, 1, 1, "done")
    if not waiting:
        return errors
    count = count_workers(workers, device, len(waiting))
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    context = multiprocessing.get_context("spawn")
    with _queue(context) as messages:
        pool = ProcessPoolExecutor(
            count, context, initializer=_start, initargs=(plugins, threads, device, messages)
        )
        try:
            running: dict[Future[str | None], int] = {
                pool.submit(_do, index, job): index for index, job in waiting
            }
            while running:
                with contextlib.suppress(queue.Empty):
                    show(*messages.get(timeout=0.5))
                for future in [f for f in running if f.done()]:
                    index = running.pop(future)
                    error = _error_of(future)
                    if error:
                        errors[jobs[index].folder] = error
                    show(index, 1, 1, "failed" if error else "done")
        except BaseException:
            for process in multiprocessing.active_children():
                if process.name.startswith("SpawnProcess"):
                    process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
    return errors


def _error_of(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except Exception as error:  # a worker that was killed, for want of memory say
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
