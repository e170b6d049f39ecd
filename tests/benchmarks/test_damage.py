"""Pieces of a study that are not as they were written are named, and made again with one result."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.evaluate.cell_files import fault
from benchmarks.runner.arms import plan_runs
from benchmarks.runner.jobs.execution import run_job, set_right
from benchmarks.runner.jobs.job import Job
from benchmarks.runner.jobs.results import read_job
from benchmarks.runner.runner import make_jobs
from benchmarks.study.schema import load_study
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import merge

STUDY = {
    "name": "mini",
    "title": "Mini",
    "base": {
        "backbone": {"name": "wan", "size": "test-tiny"},
        "dataset": "digits",
        "training": {"updates": 1, "batch_size": 2, "trackers": [], "ema": None},
    },
    "arms": {"a": {"method": "consistency"}},
    "evaluation": {
        "prompts": 2,
        "nfe": [1],
        "metrics": ["digits-motion", "digits-rigidity"],
        "shown": 1,
        "teacher": {"steps": 1},
    },
}


def plan(zoo: Zoo, out: Path, changes: Any = None) -> Job:
    study = load_study(merge(STUDY, changes or {}), "mini.yaml")
    jobs = make_jobs(study, plan_runs(study, zoo, "mini.yaml")[0], zoo, out, "cpu")
    (job,) = [job for job in jobs if job.seed is not None]
    return job


def do(job: Job, zoo: Zoo) -> None:
    run_job(job, zoo, "cpu", lambda *progress: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo) -> Job:
    """A job that is done."""
    job = plan(zoo, tmp_path_factory.mktemp("study"))
    do(job, zoo)
    return job


@pytest.fixture
def copy(finished: Job, tmp_path: Path) -> Job:
    """The same in a folder that a test may damage."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    return dataclasses.replace(finished, folder=tmp_path / "copy")


def scores(job: Job) -> dict[str, list[float]]:
    (one,) = read_job(job)[0]
    return {name: rows.tolist() for name, rows in one.rows.items()}


def arrays_of(job: Job, metric: str = "digits-motion") -> Path:
    (path,) = job.folder.glob(f"cells/*/{metric}-*.npz")
    return path


def test_a_finished_arm_keeps_no_checkpoints_unless_asked(finished, zoo, tmp_path):
    assert not (finished.folder / "checkpoints").exists()
    assert (finished.folder / "student" / "salt_zoo.json").is_file()
    job = plan(zoo, tmp_path, {"keep_checkpoints": True})
    assert job.folder.name == finished.folder.name  # it is the same training
    do(job, zoo)
    assert (job.folder / "checkpoints" / "step-000001").is_dir()


def bomb(path: Path) -> None:
    """A hundred megabytes of zeros in a tenth of one."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (2**24,)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("rows.npy", "w", force_zip64=True) as inner,
    ):
        inner.write(head.getvalue())
        for _ in range(8):
            inner.write(b"\0" * 2**24)


def resave(**changes: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with np.load(path) as file:
            arrays = {**{name: file[name] for name in file.files}, **changes}
        np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})

    return damage


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "folder": into_folder,
    "loop": into_loop,
    "other numbers": resave(rows=np.zeros(2, np.float32)),
    "not finite": resave(rows=np.full(2, np.nan, np.float32)),
    "fewer": resave(rows=np.zeros(1, np.float32)),
    "lost": resave(rows=None),
    "text": resave(rows=np.array(["a", "b"])),
    "objects": resave(rows=np.array([{}, {}], dtype=object)),
    "text of an older version": resave(rows=np.array(["a", "b"]), digest=None),
    "bomb": bomb,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_scores_that_changed_are_measured_again(name, copy, finished, zoo):
    path = arrays_of(copy)
    DAMAGE[name](path)
    assert not copy.done
    (line,) = set_right(copy)
    assert line.startswith(f"{path}: damaged (") and "\n" not in line
    assert not os.path.lexists(path) and copy.trained
    if name in ("cut", "folder"):  # what is gone is measured again in one way
        do(copy, zoo)
        assert copy.done and scores(copy) == scores(finished)
        assert not (copy.folder / "checkpoints").exists()  # nothing was trained again


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_changes_a_score(data, finished, tmp_path):
    """It is found, or it is one of those of the archive that mean nothing."""
    whole = arrays_of(finished).read_bytes()
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place // 8] ^= 1 << place % 8
    path = tmp_path / f"{place}.npz"
    path.write_bytes(flipped)
    if fault(path) is None:
        with np.load(path) as found, np.load(arrays_of(finished)) as wanted:
            assert found.files == wanted.files
            assert all((found[name] == wanted[name]).all() for name in wanted.files)


@pytest.mark.parametrize("name", ["empty", "cut", "folder", "loop"])
@pytest.mark.parametrize("file", ["cell.json", "trained.json"])
def test_records_that_changed_are_made_again(name, file, copy, finished, zoo):
    (path,) = copy.folder.rglob(file)
    DAMAGE[name](path)
    assert not copy.done
    (line,) = set_right(copy)
    assert line.startswith(f"{path}: damaged (")
    if name == "cut":  # all are made again in one way, and a training takes seconds
        do(copy, zoo)
        assert copy.done and scores(copy) == scores(finished)


@pytest.mark.parametrize(("key", "value"), [("seconds", "long"), ("flops", None), ("passes", [])])
@pytest.mark.parametrize("older", [False, True])
def test_costs_that_are_no_numbers(key, value, older, copy):
    path = copy.folder / "trained.json"
    record = json.loads(path.read_text())
    record["cost"][key] = value
    if older:
        del record["digest"]
    path.write_text(json.dumps(record))
    assert not copy.trained and not copy.done
    with pytest.raises(ZooError, match=r"trained\.json: damaged .*; delete it"):
        read_job(copy)


def test_a_damaged_student_is_not_measured(copy, finished, zoo):
    weights = next((copy.folder / "student").rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert copy.done  # nobody needs it
    arrays_of(copy).unlink()
    (line,) = set_right(copy)
    assert "its student is not whole" in line and str(weights) in line
    do(copy, zoo)
    assert copy.done and scores(copy) == scores(finished)
    assert (
        weights.read_bytes() == next((finished.folder / "student").rglob(weights.name)).read_bytes()
    )
