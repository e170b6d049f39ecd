"""The files in a job's folder, and what becomes of those that are not as they were written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_zoo.core.errors import ZooError
from salt_zoo.io.seals import Damaged, read_sealed
from salt_zoo.training.students import check_student

if TYPE_CHECKING:
    from benchmarks.runner.jobs import Job

TRAINED, STUDENT = "trained.json", "student"


def read_training(folder: Path) -> dict[str, Any]:
    """What is recorded of the training in a job's folder.

    Raises:
        Damaged: the file is not as it was written.
    """
    path = folder / TRAINED
    record = read_sealed(path)
    cost = record.get("cost")
    whole = isinstance(record.get("curve"), list) and isinstance(record.get("stamp"), dict)
    if not (whole and isinstance(cost, dict) and isinstance(cost.get("passes"), dict)):
        raise Damaged(path, "it lacks a part")
    for key in ("updates", "flops", "seconds"):
        if not isinstance(cost.get(key), int | float):
            raise Damaged(path, f"its {key!r} is no number")
    return record


def training_of(job: Job) -> dict[str, Any]:
    """The record of a job's training, where it must be there."""
    try:
        return read_training(job.folder)
    except Damaged as damage:
        raise ZooError(
            f"{damage.path}: damaged ({damage.why}); delete it and run the study again"
        ) from None


def set_right(job: Job) -> list[str]:
    """Remove the files of a job that are not as they were written, and return a line about each;
    what they held is then made again."""
    damaged = [damage for cell in job.cells for damage in cell.damaged(job.folder)]
    record = job.folder / TRAINED
    if job.seed is not None and os.path.lexists(record):
        try:
            read_training(job.folder)
        except Damaged as found:
            damaged.append(found)
        else:
            if damaged or not job.done:  # the student is needed once more
                try:
                    check_student(job.folder / STUDENT)
                except ZooError as error:
                    place = str(error).partition("; ")[0]
                    damaged.append(Damaged(record, f"its student is not whole: {place}"))
    for damage in damaged:
        if damage.path.is_dir() and not damage.path.is_symlink():
            shutil.rmtree(damage.path)
        else:
            damage.path.unlink(missing_ok=True)
    return [f"{damage.path}: damaged ({damage.why}); it is made again" for damage in damaged]
