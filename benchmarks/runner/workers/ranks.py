"""The jobs of a study in the processes of a distributed run: all of them take part in every job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.runner.jobs.execution import run_next_job
from benchmarks.runner.jobs.job import Job
from benchmarks.runner.workers.pool import Ended
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.isolation.foreign import BrokenPart, ForeignError
from salt_zoo.plugin.manager import Zoo


def run_jobs_together(jobs: Sequence[Job], zoo: Zoo, device: str, show: Any) -> Ended:
    """Do all jobs, one after the other; see `workers.run_jobs`.

    A mistake or a loss that is not finite fails in all processes alike, and is the error of its
    job. Whatever else ends one of them, an error of a plugin's code for instance, ends the whole
    study, which goes on with the same command.
    """
    ended = Ended()
    for index, job in enumerate(jobs):

        def progress(step: int, updates: int, what: str, index: int = index) -> None:
            show(index, step, updates, what)

        try:
            broken = run_next_job(job, zoo, device, progress)
        except ZooError as error:
            if isinstance(error, ForeignError) and not isinstance(error, BrokenPart):
                raise  # perhaps of this process alone: the others wait for it
            ended.errors[job.folder] = str(error)
        else:
            if broken:
                ended.metrics[job.folder] = broken
        show(index, 1, 1, "failed" if job.folder in ended.errors else "done")
    return ended
