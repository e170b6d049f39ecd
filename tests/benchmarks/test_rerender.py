"""A report from its own folder, and its intervals by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from benchmarks.report import rerender as module
from benchmarks.report.build import write_report
from benchmarks.report.rerender import main
from benchmarks.stats.reproduce import reproduce
from benchmarks.stats.results import build_results, write_results
from benchmarks.study.stated import record_end, record_start, when_stated
from salt_zoo.core.errors import ZooError
from salt_zoo.plugin.manager import load_zoo

ZOO = load_zoo()
PAGES = ("index.html", "report.md", "results.json")


@pytest.fixture(scope="module")
def folder(make_study: Callable[..., Any], tmp_path_factory: Any) -> Path:
    """A report with long videos, and all that is kept beside it."""
    study = make_study(nfes=(1, 4), samplers=("sde", "ode"), long=24, prompts=24)
    study.study["primary"][0]["claim"] = "a claim"
    out, store = tmp_path_factory.mktemp("report"), {}
    results = build_results(**vars(study), resamples=100, store=store)
    write_results(results, study.measured, out, store)
    write_report(results, study.measured, out)
    return out


@pytest.fixture
def again(folder: Path, tmp_path: Path, make_study: Callable[..., Any], monkeypatch: Any) -> Path:
    """A copy of the report, whose made-up metrics are known."""
    infos = {metric.name: metric for metric in make_study().metrics}
    monkeypatch.setattr(module, "_infos", lambda zoo, study: infos)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("index.html", "report.md"):
        (copy / name).unlink()
    return copy


def test_a_report_is_rendered_again_from_its_folder(folder: Path, again: Path) -> None:
    assert module.rerender(again, ZOO) == 0
    for name in PAGES:
        first, second = ((where / name).read_text() for where in (folder, again))
        if name == "results.json":
            first, second = json.loads(first), json.loads(second)
        assert first == second, name


def test_a_changed_direction_is_a_new_verdict(again: Path, monkeypatch: Any) -> None:
    """Nothing that follows from scores is taken from the old page."""
    from dataclasses import replace

    known = module._infos
    monkeypatch.setattr(
        module,
        "_infos",
        lambda *given: {k: replace(m, direction="higher") for k, m in known(*given).items()},
    )
    before = json.loads((again / "results.json").read_text())
    module.rerender(again, ZOO)
    after = json.loads((again / "results.json").read_text())
    sides = [
        [entry["favours"] for entry in found["comparisons"] if entry["metric"] == "rigidity"]
        for found in (before, after)
    ]
    turned = {"a": "b", "b": "a", None: None}
    assert set(sides[0]) > {None} and sides[1] == [turned[side] for side in sides[0]]


def test_an_older_report_keeps_the_intervals_of_its_features(folder: Path, again: Path) -> None:
    """Of schema 1 nothing of the features was kept but what results.json says."""
    old = json.loads((again / "results.json").read_text())
    old["schema"] = 1
    for entry in [*old["comparisons"], *old["drift"]["comparisons"]]:
        entry.pop("p")
    old["primary"].append(
        {
            **next(c for c in old["comparisons"] if c["metric"] == "frechet" and c["nfe"] == 4),
            "verdict": "shown",
        }
    )
    asked = {key: old["primary"][-1][key] for key in ("a", "b", "metric", "nfe", "sampler")}
    old["study"]["primary"].append({**asked, "length": None, "slope": False})
    for outcome in old["primary"]:
        outcome.pop("p", None)
    old.pop("answer")
    (again / "results.json").write_text(json.dumps(old))
    (again / "replicates.npz").unlink()
    module.rerender(again, ZOO)
    new = json.loads((again / "results.json").read_text())
    assert new["schema"] == 2 and new["carried"]

    def of(results: dict[str, Any], key: str) -> list[Any]:
        found = [entry for entry in results[key] if entry["metric"] == "frechet"]
        return [{k: e.get(k) for k in ("low", "high", "mean", "difference")} for e in found]

    assert of(new, "rows") == of(old, "rows") and of(new, "comparisons") == of(old, "comparisons")
    assert {e["metric"] for e in new["drift"]["curves"]} == {"frechet", "accuracy", "rigidity"}
    assert new["answer"]["metric"] == "frechet" and new["answer"]["rows"]
    outcome = new["primary"][-1]
    assert outcome["difference"] == old["primary"][-1]["difference"] and "p_holm" in outcome
    levels = [c for c in new["comparisons"] if c["metric"] == "frechet"]
    assert all((c["p"] < 0.05) == c["clear"] for c in levels)
    text = (again / "report.md").read_text()
    assert "Intervals of frechet are carried over" in text
    module.rerender(again, ZOO)  # and once more
    assert (again / "report.md").read_text() == text


def test_every_interval_of_a_mean_can_be_had_by_hand(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    checked = 0
    for row in results["rows"]:
        if row["metric"] == "accuracy":
            setting = {"nfe": row["nfe"], "sampler": row["sampler"]}
            found = reproduce(folder, "accuracy", row["arm"], **setting)
            wanted = [row[key] for key in ("mean", "low", "high")]
            assert [found.value, found.low, found.high] == pytest.approx(wanted, rel=1e-6)
            checked += 1
    for entry in results["comparisons"]:
        if entry["metric"] == "rigidity":
            setting = {"nfe": entry["nfe"], "sampler": entry["sampler"]}
            found = reproduce(folder, "rigidity", entry["a"], entry["b"], **setting)
            wanted = [entry[key] for key in ("difference", "low", "high", "p")]
            given = [found.value, found.low, found.high, found.p]
            assert given == pytest.approx(wanted, rel=1e-5, abs=1e-9)
            checked += 1
    assert checked > 40


def test_what_is_no_mean_is_refused(folder: Path) -> None:
    with pytest.raises(ZooError, match="'frechet' is no mean of scores here; those are: accuracy"):
        reproduce(folder, "frechet", "dmd", nfe=4)
    with pytest.raises(ZooError, match="no scores of 'dmdd'"):
        reproduce(folder, "accuracy", "dmdd", nfe=4)


def test_a_folder_that_is_no_report(tmp_path: Path, again: Path, capsys: Any) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert "there is no such file; name the folder of a report" in capsys.readouterr().err
    (again / "samples.parquet").unlink()
    assert main([str(again)]) == 2
    assert "samples.parquet: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "key", ["metrics", "prompts", "bootstrap", "curves", "provenance", "drift"]
)
def test_results_without_a_key(key: str, again: Path, capsys: Any) -> None:
    path = again / "results.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in content.items() if k != key}))
    assert main([str(again)]) == 2
    assert f"{path}: damaged (it has no {key!r})" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"seen": {"a": 1}}', "\xff"])
def test_a_damaged_record_of_outcomes(text: str, tmp_path: Path) -> None:
    (tmp_path / "stated.json").write_bytes(text.encode("latin-1"))
    for call in (lambda: record_start([], tmp_path, False), lambda: when_stated([], tmp_path)):
        with pytest.raises(ZooError, match=r"stated.json: damaged .*; delete it"):
            call()
    assert (tmp_path / "stated.json").read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize(
    "name", ["samples.parquet", "drift.parquet", "replicates.npz", "videos.npz"]
)
@pytest.mark.parametrize("size", [0, 0.5])
def test_a_damaged_file_is_one_line(name: str, size: float, again: Path, capsys: Any) -> None:
    path = again / name
    path.write_bytes(path.read_bytes()[: int(size * path.stat().st_size)])
    before = (again / "results.json").read_bytes()
    capsys.readouterr()
    assert module.main([str(again)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert name in line and "damaged (" in line and "run the study again" in line
    assert (again / "results.json").read_bytes() == before


def test_scores_of_another_report_are_refused(again: Path, capsys: Any) -> None:
    table = pandas.read_parquet(again / "samples.parquet")
    table[table.prompt_index < 5].to_parquet(again / "samples.parquet")
    assert main([str(again)]) == 2
    assert "5 scores of" in capsys.readouterr().err


OUTCOMES = [
    {"a": "x", "b": "y", "metric": "m", "nfe": n, "sampler": "sde", "claim": "c"} for n in (1, 2, 4)
]


def test_when_an_outcome_was_stated(tmp_path: Path) -> None:
    path = tmp_path / "stated.json"
    record_start(OUTCOMES[:1], tmp_path, started=False)
    assert when_stated(OUTCOMES, tmp_path) == ["before", "not recorded", "not recorded"]
    first = json.loads(path.read_text())
    record_start(OUTCOMES[:2], tmp_path, started=True)
    record = json.loads(path.read_text())
    [added] = record["seen"].keys() - first["seen"].keys()
    record["seen"][added] = "2999-01-01T00:00:00+00:00"  # long after the first job began
    path.write_text(json.dumps(record))
    assert when_stated(OUTCOMES[:2], tmp_path) == ["before", "during"]
    record_end(tmp_path)
    # another wording is the same outcome, another side is another
    assert when_stated([{**OUTCOMES[0], "claim": "other"}], tmp_path) == ["before"]
    assert when_stated([{**OUTCOMES[0], "a": "y", "b": "x"}], tmp_path) == ["not recorded"]
    assert when_stated(OUTCOMES[1:2], tmp_path) == ["after"]


def test_jobs_without_a_record(tmp_path: Path) -> None:
    record_start(OUTCOMES, tmp_path, started=True)
    assert set(when_stated(OUTCOMES, tmp_path)) == {"not recorded"}


def test_videos_are_kept_as_small_as_they_are_shown(make_study: Callable[..., Any]) -> None:
    from dataclasses import replace

    from benchmarks.evaluate.pictures import shown_videos

    one = make_study(seeds=1, nfes=(4,)).measured[-1]
    large = np.random.default_rng(0).integers(0, 255, (2, 3, 81, 192, 320), np.uint8)
    [(key, kept)] = shown_videos([replace(one, pixels=large)]).items()
    assert key[-1] == "short" and kept.shape == (2, 3, 16, 96, 160)
    small = np.zeros((2, 1, 9, 16, 16), np.uint8)
    [(_, kept)] = shown_videos([replace(one, pixels=small)]).items()
    assert kept.shape == small.shape
