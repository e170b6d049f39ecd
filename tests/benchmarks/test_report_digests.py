"""A report's files are those that were written, or it is not rendered again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from benchmarks.report import again as reading
from benchmarks.report.__main__ import main
from benchmarks.stats.report_digests import COVERED, FILE, check_digests, digests_renewed
from benchmarks.stats.reproduce import reproduce
from benchmarks.stats.results import build_results
from benchmarks.stats.results_file import write_results
from salt_zoo.core.base.errors import ZooError

REPORTS = Path(__file__).parents[2] / "reports"


@pytest.fixture(scope="module")
def folder(make_study: Callable[..., Any], tmp_path_factory: Any) -> Path:
    """A report with all files that there may be."""
    two = {"dmd": 0.4, "cda": 0.3}
    study, store = make_study(two, nfes=(1,), long=4, prompts=6, seeds=2), {}
    out = tmp_path_factory.mktemp("report")
    results = build_results(**vars(study), resamples=20, store=store)
    write_results(results, study.measured, out, store)
    assert {name for name in COVERED if (out / name).exists()} == {*COVERED}
    return out


@pytest.fixture
def copy(folder: Path, tmp_path: Path, make_study: Callable[..., Any], monkeypatch: Any) -> Path:
    few = make_study({"dmd": 0.4}, seeds=1, nfes=(1,), prompts=2)
    infos = {metric.name: metric for metric in few.metrics}
    monkeypatch.setattr(reading, "_infos", lambda zoo, study: infos)
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit_mean(folder: Path) -> None:
    """One digit of one number, in a file that is read as well as before."""
    path = folder / "results.json"
    content = json.loads(path.read_text())
    content["arms"][0]["flops"] *= 2
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def edit_score(folder: Path) -> None:
    table = pandas.read_parquet(folder / "samples.parquet")
    table.loc[table.index[5], "score"] += 0.5
    table.to_parquet(folder / "samples.parquet", index=False)


def cut(folder: Path) -> None:
    os.truncate(folder / "samples.parquet", 900)


def lose(folder: Path) -> None:
    """Without it intervals of features would be carried over, or missing."""
    (folder / "replicates.npz").unlink()


def exchange(folder: Path) -> None:
    shutil.copy(folder / "videos.npz", folder / "replicates.npz")


def edit_digests(folder: Path) -> None:
    content = json.loads((folder / FILE).read_text())
    content["files"]["results.json"] = "0" * 64
    (folder / FILE).write_text(json.dumps(content))


DAMAGE = {
    edit_mean: "results.json",
    edit_score: "samples.parquet",
    cut: "samples.parquet",
    lose: "replicates.npz",
    exchange: "replicates.npz",
    edit_digests: FILE,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_was_changed_is_one_line_and_no_page(damage, copy, capsys):
    damage(copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert main([str(copy)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {copy / DAMAGE[damage]}: damaged (")
    assert f"--out {copy}" in line
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    with pytest.raises(ZooError, match="damaged"):
        reproduce(copy, "accuracy", "dmd", nfe=1)


def test_a_report_is_rendered_again_and_again(copy, capsys):
    """The digests are of what was written last."""
    first = json.loads((copy / "results.json").read_text())
    for _ in range(2):
        assert main([str(copy)]) == 0
        assert "note: " not in capsys.readouterr().err
    assert json.loads((copy / "results.json").read_text()) == first
    check_digests(copy)


def test_a_report_of_before_has_none_and_is_told(copy, capsys):
    (copy / FILE).unlink()
    assert main([str(copy)]) == 0
    (note,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("note: ")]
    assert str(copy) in note and FILE in note
    check_digests(copy)


@pytest.mark.parametrize("name", ["cda", "digits", "null", "quick", "self_forcing"])
def test_committed_reports_are_as_they_were_generated(name, capsys):
    check_digests(REPORTS / name)
    assert capsys.readouterr().err == ""  # none of them lacks its digests


def test_what_is_interrupted_has_no_digests(copy):
    """Those of before would be wrong of some files."""
    with pytest.raises(KeyboardInterrupt), digests_renewed(copy):
        edit_score(copy)
        raise KeyboardInterrupt
    assert not (copy / FILE).exists()
