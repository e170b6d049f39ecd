"""When a hypothesis was written into a study's file: before its first job began, during, or after.

The runner keeps `stated.json` in the report's folder: when the first job began and the last ended,
and when it first saw each hypothesis (by the digest of what it compares; its wording may change).
A digest of its own shows whether it was edited.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from benchmarks.study.entries.config import Hypothesis
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.seals import Damaged, read_sealed, write_sealed
from salt_zoo.io.files.storage import digest

FILE = "stated.json"

#: When a hypothesis was written into the study's file, relative to the study's jobs.
Stated = Literal["before", "during", "after", "not recorded"]
#: What a hypothesis compares.
COMPARED = ("a", "b", "metric", "nfe", "sampler", "length", "slope")


def record_start(hypotheses: Sequence[Hypothesis], folder: Path, started: bool) -> None:
    """Called by the runner before any job. `started`: jobs of this study have run in the folder."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = _read(folder)
    if record is None:  # of jobs without a record nobody knows what stood in the file before them
        began = None if started else now
        record = {"first_job_began": began, "last_job_ended": None, "seen": {}}
    seen = record["seen"]
    for hypothesis in hypotheses:
        seen.setdefault(_id(hypothesis), now)
    write_sealed(folder / FILE, record)


def record_end(folder: Path) -> None:
    """Called by the runner when every job is done."""
    record = _read(folder)
    if record is not None and record["last_job_ended"] is None:
        record["last_job_ended"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_sealed(folder / FILE, record)


def when_stated(hypotheses: Sequence[Hypothesis], folder: Path) -> list[Stated]:
    """When each hypothesis was stated, relative to the jobs in `folder`.

    One that the runner has not seen is "after" where all jobs have ended, and "during" where some
    have not, or failed. Without a record, or with one that was begun after jobs had run, it is
    "not recorded".
    """
    record = _read(folder)
    return [_when(hypothesis, record) for hypothesis in hypotheses]


def _when(hypothesis: Hypothesis, record: Mapping[str, Any] | None) -> Stated:
    if record is None:
        return "not recorded"
    began, ended = record["first_job_began"], record["last_job_ended"]
    # a hypothesis that the runner never saw came after whatever the runner did
    seen = record["seen"].get(_id(hypothesis))
    if ended is not None and (seen is None or seen > ended):
        return "after"
    if began is None:
        return "not recorded"
    return "before" if seen is not None and seen <= began else "during"


def _id(hypothesis: Hypothesis) -> str:
    return digest([getattr(hypothesis, key) for key in COMPARED])


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / FILE
    if not os.path.lexists(path):
        return None
    try:
        record = read_sealed(path)
    except Damaged as damage:
        raise _damaged(path, damage.why) from None
    times = ("first_job_began", "last_job_ended")
    if not (
        isinstance(record.get("seen"), dict)
        and all(isinstance(when, str) for when in record["seen"].values())
        and all(key in record and isinstance(record[key], str | None) for key in times)
    ):
        raise _damaged(path, "it is not what was written")
    return record


def _damaged(path: Path, why: str) -> ZooError:
    return ZooError(
        f"{path}: damaged ({why}); delete it: when the hypotheses were stated is then not recorded"
    )
