"""Whether a run may go on from what its folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt_zoo.config.identity import Difference, differences
from salt_zoo.config.training import ScheduleConfig, TrainingConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.training.checkpoints.checkpoint import Checkpoint, newest_whole
from salt_zoo.training.state.optimizers import schedule_factor

UPDATES = "training.updates"


def find_checkpoint(
    folder: Path,
    identity: Mapping[str, Any],
    origin: Mapping[str, Any],
    config: TrainingConfig,
) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint of the run in `folder` to go on from, and lines of warning.

    A run may be prolonged, and its batches split otherwise into parts and processes. It is then the
    run with the new number of updates from the beginning, to the last bit (split otherwise: but for
    rounding). Another code of a part is warned of: whoever mends it may want to go on.

    Args:
        identity: of the run as it is to be now (`salt_zoo.config.identity`).
        origin: its `inputs` and `code`.

    Raises:
        ZooError: the checkpoint is of another run.
    """
    found, warnings = newest_whole(folder / "checkpoints")
    if found is None:
        if warnings:
            warnings[-1] += "; no other is whole: the training starts over"
        return None, warnings
    if warnings:
        warnings[-1] += f"; the training resumes from {found.folder}"
    if "identity" not in found.state:
        raise ZooError(
            f"{folder}: its checkpoint was made by an older version of Salt Zoo; "
            "choose another folder, or delete this one to start over"
        )
    found_keys = list(differences(found.state["identity"], identity))
    if other := [one for one in found_keys if one.key != UPDATES]:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise ZooError(
            f"{folder}: its checkpoint was made with another configuration "
            f"({'; '.join(map(str, other[:3]))}{more}); choose another folder, or delete this one "
            "to start over"
        )
    for one in found_keys:
        _check_length(folder, found.step, one, config.schedule)
    kept = found.state.get("origin")
    if kept is not None:  # checkpoints of older versions do not know
        warnings += _check_origin(folder, kept, origin)
    return found, warnings


def _check_length(folder: Path, done: int, updates: Difference, schedule: ScheduleConfig) -> None:
    """Refuse another number of updates where what is done would have been done otherwise."""
    if updates.here < done:
        raise ZooError(
            f"{folder}: {updates}, and {done} are done; choose another folder, or write "
            f"{UPDATES}={done} or more"
        )
    for step in range(done):
        if schedule_factor(step, updates.there, schedule) != schedule_factor(
            step, updates.here, schedule
        ):
            raise ZooError(
                f"{folder}: {updates}, and the learning rate depends on it: with "
                f"training.schedule.decay_from={schedule.decay_from:g} update {step + 1} of the "
                f"{done} that are done would have been another one; choose another folder"
            )


def _check_origin(folder: Path, kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    for one in differences(kept["inputs"], now["inputs"]):
        raise ZooError(
            f"{folder}: since its checkpoint the weights or the data have changed ({one}); put "
            "back what was there, or choose another folder"
        )
    return [
        f"{folder}: resumes with other code than its checkpoint's ({one.key})"
        for one in differences(kept["code"], now["code"])
    ]
