"""The record of a training in a job's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.seals import Damaged, read_sealed

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


def training_of(folder: Path) -> dict[str, Any]:
    """The record of the training in a job's folder, where it must be there."""
    try:
        return read_training(folder)
    except Damaged as damage:
        raise ZooError(
            f"{damage.path}: damaged ({damage.why}); delete it and run the study again"
        ) from None
