"""Doing the jobs of a study side by side, each in a process of its own."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.runner.jobs.job import Job
from benchmarks.runner.workers.processes import Do, Tell, run_tasks


@dataclass
class Ended:
    """How the jobs of a study ended: by folder the `errors` of those that failed, and for those
    that did not why `metrics` of theirs could not be measured, by label."""

    errors: dict[Path, str] = field(default_factory=dict)
    metrics: dict[Path, dict[str, str]] = field(default_factory=dict)


def count_workers(wanted: int, device: str, jobs: int) -> int:
    """How many processes: on a CPU one a core (one thread each), on CUDA one."""
    if wanted == 0:
        wanted = 1 if device.startswith("cuda") else len(os.sched_getaffinity(0))
    return max(1, min(wanted, jobs))


def _begin(plugins: Sequence[str], threads: int, device: str) -> Do:
    """Runs once in each process; returns what does a job there."""
    import torch

    from benchmarks.runner.jobs.execution import run_next_job
    from salt_zoo.plugin.isolation.foreign import blaming
    from salt_zoo.plugin.isolation.surroundings import exits_raised, settings_kept
    from salt_zoo.plugin.manager import load_zoo, refuse_broken

    # OMP_NUM_THREADS may ask for fewer: on a busy machine threads of small networks spin
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    zoo = load_zoo(plugins)
    refuse_broken(zoo)

    def do(job: Job, tell: Tell) -> dict[str, str]:
        # the next job must not find what this one's code has set
        with settings_kept(), exits_raised(), blaming(zoo):
            return run_next_job(job, zoo, device, tell)

    return do


def run_jobs(
    jobs: Sequence[Job], plugins: Sequence[str], device: str, workers: int, show: Any
) -> Ended:
    """Do all jobs that are not done.

    `show(index, step, updates, what)` receives the progress of job `index`; `what` is "done" or
    "failed" at its end, and `processes.AGAIN` where its process died and it is tried again later.
    """
    ended = Ended()
    waiting = [index for index, job in enumerate(jobs) if not job.done]
    for index in sorted(set(range(len(jobs))) - set(waiting)):
        show(index, 1, 1, "done")
    if not waiting:
        return ended
    count = count_workers(workers, device, len(waiting))
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    results = run_tasks(
        [jobs[index] for index in waiting],
        functools.partial(_begin, tuple(plugins), threads, device),
        count,
        lambda index, *progress: show(waiting[index], *progress),
    )
    for index, result in zip(waiting, results, strict=True):
        if result.error:
            ended.errors[jobs[index].folder] = result.error
        elif result.value:
            ended.metrics[jobs[index].folder] = result.value
    return ended
