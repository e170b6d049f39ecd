"""A tiny study, its jobs, and what they leave on disk."""

from __future__ import annotations

from pathlib import Path

from benchmarks.runner.jobs.execution import run_job
from benchmarks.runner.jobs.job import Job
from salt_zoo.plugin.manager import Zoo

#: The plugin of its size: one random block takes a fourth of the time of the four of `digits`.
SIZES = "tests.sizes.plugin"
STUDY = {
    "name": "mini",
    "title": "Mini",
    "base": {
        "backbone": {"name": "self-forcing", "size": "test-tiny"},
        "dataset": "digits",
        "training": {"updates": 1, "batch_size": 2, "trackers": [], "ema": None},
    },
    "arms": {"a": {"method": {"name": "dmd", "steps": 2, "fake_score": {"updates": 1}}}},
    "evaluation": {
        "prompts": 2,
        "nfe": [1],
        "metrics": ["digits-class"],
        "shown": 1,
        "teacher": {"steps": 1},
    },
}

#: The changes under which the arm of the fixture `done` was measured: also by a metric with
#: rollouts of its own.
DONE = {"evaluation": {"metrics": ["digits-class", "semigroup-defect"]}}

Files = dict[Path, tuple[int, int]]


def arm(jobs: list[Job]) -> Job:
    (job,) = [job for job in jobs if job.seed is not None]
    return job


def do(job: Job, zoo: Zoo) -> Job:
    run_job(job, zoo, "cpu", lambda *progress: None)
    assert job.done
    return job


def files(job: Job) -> Files:
    paths = [path for path in job.folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def new(before: Files, after: Files) -> set[str]:
    """What was written beside files that were left alone."""
    assert all(after.get(path) == known for path, known in before.items())
    return {path.name for path in after.keys() - before.keys()}


def names(changed: set[str]) -> set[str]:
    """Without their keys."""
    return {name.rpartition("-")[0] or name for name in changed}
