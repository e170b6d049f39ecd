"""A report from its own folder, and its intervals by hand."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import yaml

from benchmarks.report import __main__ as module
from benchmarks.report import again as reading
from benchmarks.report.__main__ import main
from benchmarks.report.build import write_report
from benchmarks.stats.report_digests import FILE as DIGESTS
from benchmarks.stats.reproduce import reproduce
from benchmarks.stats.results import build_results
from benchmarks.stats.results_file import read_results, write_results
from benchmarks.study.entries.config import Hypothesis
from benchmarks.study.schema import read_study
from benchmarks.study.stated import record_end, record_start, when_stated
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.seals import read_sealed, write_sealed
from salt_zoo.plugin.manager import load_zoo

ZOO = load_zoo()
PAGES = ("index.html", "report.md", "results.json")
REPORTS = Path(__file__).parents[2] / "reports"


@pytest.fixture(scope="module")
def folder(make_study: Callable[..., Any], tmp_path_factory: Any) -> Path:
    """A report with long videos, and all that is kept beside it."""
    three = {"consistency": 0.5, "dmd": 0.42, "sc-dmd-velocity": 0.3}
    study = make_study(three, nfes=(1, 4), samplers=("sde", "ode"), long=40)
    study.study["hypotheses"][0]["claim"] = "a claim"
    out, store = tmp_path_factory.mktemp("report"), {}
    results = build_results(**vars(study), resamples=100, store=store)
    write_results(results, study.measured, out, store)
    write_report(results, study.measured, out)
    return out


@pytest.fixture
def again(folder: Path, tmp_path: Path, make_study: Callable[..., Any], monkeypatch: Any) -> Path:
    """A copy of the report, whose made-up metrics are known and whose files may be changed."""
    few = make_study({"dmd": 0.4}, seeds=1, nfes=(1,), prompts=2)
    infos = {metric.name: metric for metric in few.metrics}
    monkeypatch.setattr(reading, "_infos", lambda zoo, study: infos)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("index.html", "report.md", DIGESTS):
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

    known = reading._infos
    monkeypatch.setattr(
        reading,
        "_infos",
        lambda *given: {k: replace(m, direction="higher") for k, m in known(*given).items()},
    )
    before = json.loads((again / "results.json").read_text())
    module.rerender(again, ZOO)
    after = json.loads((again / "results.json").read_text())
    sides = [
        [entry["better"] for entry in found["comparisons"] if entry["metric"] == "rigidity"]
        for found in (before, after)
    ]
    turned = {"a": "b", "b": "a", None: None}
    assert set(sides[0]) > {None} and sides[1] == [turned[side] for side in sides[0]]


def test_a_report_without_its_features_keeps_their_intervals(folder: Path, again: Path) -> None:
    """Of the features nothing was kept but what results.json says."""
    old = json.loads((again / "results.json").read_text())
    decided = next(
        c for c in old["comparisons"] if c["metric"] == "frechet" and c["nfe"] == 4 and c["better"]
    )
    stated = {key: decided[key] for key in ("a", "b", "metric", "nfe", "sampler")}
    stated |= {"name": None, "length": None, "slope": False, "claim": ""}
    old["study"]["hypotheses"].append(stated)
    rest = {"p_holm": decided["p"], "verdict": "inconclusive", "stated": "before"}
    old["hypotheses"].append({**stated, "comparison": decided, **rest})
    old["carried"] = True
    (again / "results.json").write_text(json.dumps(old))
    (again / "replicates.npz").unlink()
    module.rerender(again, ZOO)
    new = json.loads((again / "results.json").read_text())
    assert new["carried"]

    def of(results: dict[str, Any], key: str) -> list[Any]:
        found = [entry for entry in results[key] if entry["metric"] == "frechet"]
        return [{k: v for k, v in e.items() if k != "carried"} for e in found]

    for key in ("rows", "comparisons"):
        assert of(new, key) == of(old, key) and of(new["drift"], "comparisons")
        assert all(e["carried"] == (e["metric"] == "frechet") for e in new[key])
    assert {e["metric"] for e in new["drift"]["curves"]} == {"frechet", "accuracy", "rigidity"}
    assert new["answer"]["metric"] == "frechet" and new["answer"]["rows"]
    hypothesis = new["hypotheses"][-1]
    assert hypothesis["comparison"] == {**decided, "carried": True}
    assert hypothesis["p_holm"] >= decided["p"] and hypothesis["stated"] == "not recorded"
    text = (again / "report.md").read_text()
    assert "Intervals of frechet are carried over" in text
    module.rerender(again, ZOO)  # and once more
    assert (again / "report.md").read_text() == text


def had_by_hand(folder: Path) -> int:
    """How many intervals were found again."""
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
    return checked


def test_every_interval_of_a_mean_can_be_had_by_hand(folder: Path) -> None:
    assert had_by_hand(folder) > 40


def test_intervals_of_prompts_with_different_numbers_of_videos_can_be_had_by_hand(
    make_study: Callable[..., Any], tmp_path: Path
) -> None:
    study = make_study({"dmd": 0.4}, seeds=2, nfes=(4,), prompts=24)  # of 20 texts
    results = build_results(**vars(study), resamples=20)
    write_results(results, study.measured, tmp_path)
    assert had_by_hand(tmp_path) > 4


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


def changed(content: Any, path: str, value: Any) -> Any:
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = content
    for part in above:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("metrics", None, "this key is required"),
        ("drift", None, "this key is required"),
        ("rows.3.mean", "high", "should be a valid number, not 'high'"),
        ("comparisons.0.better", "c", "should be 'a' or 'b', not 'c'"),
        ("hypotheses.0.verdict", "shown", "not 'shown'"),
        ("drift.values.0.favours", "a", "unknown key"),
        ("bootstrap.resamples", True, "should be a valid integer, not True"),
    ],
)
def test_wrong_results_are_one_line(
    key: str, value: Any, said: str, again: Path, capsys: Any
) -> None:
    path = again / "results.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), key, value)))
    before = path.read_bytes()
    capsys.readouterr()
    assert main([str(again)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: {key}: ") and said in line
    assert f"run the study again with --out {again}" in line and path.read_bytes() == before


@pytest.mark.parametrize("schema", [2, 4, "3"])
def test_results_of_another_schema_are_refused(schema: Any, again: Path, capsys: Any) -> None:
    path = again / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    capsys.readouterr()
    assert main([str(again)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: schema: {schema!r} is of another version (this one reads 3); run" in line


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"seen": {"a": 1}}', "\xff", "[" * 10**5])
def test_a_damaged_record_of_hypotheses(text: str, tmp_path: Path) -> None:
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


#: Of the product; `again` has one of made-up metrics in its place.
INFOS = reading._infos

INSTEAD: dict[str, Callable[[Path], Any]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe that nobody writes to": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
}


def error_of(folder: Path, capsys: Any) -> str:
    capsys.readouterr()
    assert module.main([str(folder)]) in (1, 2)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return line


def test_what_is_no_file_is_one_line(again: Path, capsys: Any) -> None:
    """It is not passed over, as if nothing had been written, nor waited for."""
    for name in ("stated.json", "videos.npz", "replicates.npz", "results.json"):
        for make in INSTEAD.values():
            path = again / name
            path.rename(again / "kept") if path.exists() else None
            make(path)
            assert error_of(again, capsys).startswith(f"error: {path}: ")
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            (again / "kept").rename(path) if (again / "kept").exists() else None


def test_parts_that_do_not_go_together_are_one_line(
    again: Path, capsys: Any, monkeypatch: Any
) -> None:
    path = again / "results.json"
    text = path.read_text()
    for key, value in (("bootstrap.resamples", 0), ("study.evaluation", "x")):
        path.write_text(json.dumps(changed(json.loads(text), key, value)))
        line = error_of(again, capsys)
        assert f"{path}: " in line and f"run the study again with --out {again}" in line
        monkeypatch.setattr(reading, "_infos", INFOS)  # which looks into the study
    path.write_text("[" * 10**5)
    line = error_of(again, capsys)
    assert "results.json: damaged (it is nested too deep); run the study again" in line


def test_scores_of_another_report_are_refused(again: Path, capsys: Any) -> None:
    table = pandas.read_parquet(again / "samples.parquet")
    table[table.prompt_index < 5].to_parquet(again / "samples.parquet")
    assert main([str(again)]) == 2
    assert "5 scores of" in capsys.readouterr().err


HYPOTHESES = [Hypothesis(a="x", b="y", metric="m", nfe=n, claim="c") for n in (1, 2, 4)]


def test_when_a_hypothesis_was_stated(tmp_path: Path) -> None:
    path = tmp_path / "stated.json"
    record_start(HYPOTHESES[:1], tmp_path, started=False)
    # what the runner has not seen was not there when its first job began
    assert when_stated(HYPOTHESES, tmp_path) == ["before", "during", "during"]
    first = json.loads(path.read_text())
    record_start(HYPOTHESES[:2], tmp_path, started=True)
    record = json.loads(path.read_text())
    [added] = record["seen"].keys() - first["seen"].keys()
    record["seen"][added] = "2999-01-01T00:00:00+00:00"  # long after the first job began
    path.write_text(json.dumps(record))
    with pytest.raises(ZooError, match="its content has changed since it was written"):
        when_stated(HYPOTHESES, tmp_path)
    del record["digest"]
    path.write_text(json.dumps(record))
    assert when_stated(HYPOTHESES[:2], tmp_path) == ["before", "during"]
    record_end(tmp_path)
    # another wording is the same hypothesis, another side is another
    reworded = HYPOTHESES[0].model_copy(update={"claim": "other"})
    turned = HYPOTHESES[0].model_copy(update={"a": "y", "b": "x"})
    assert when_stated([reworded], tmp_path) == ["before"]
    assert when_stated([turned], tmp_path) == ["after"]
    assert when_stated(HYPOTHESES[1:], tmp_path) == ["after", "after"]


def test_jobs_without_a_record(tmp_path: Path) -> None:
    assert when_stated(HYPOTHESES[:1], tmp_path) == ["not recorded"]
    record_start(HYPOTHESES[:2], tmp_path, started=True)
    assert set(when_stated(HYPOTHESES, tmp_path)) == {"not recorded"}
    record_end(tmp_path)  # whatever comes now comes after it
    assert when_stated(HYPOTHESES, tmp_path) == ["not recorded", "not recorded", "after"]


def test_a_hypothesis_of_a_rendering_is_late(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is told on the page, of a finished study and of one with a job that failed."""
    folder, study = tmp_path / "null", tmp_path / "null.yaml"
    shutil.copytree(REPORTS / "null", folder)
    content, _ = read_study("null")
    known = len(content["hypotheses"])
    late = {"a": "other", "b": "one", "metric": "digits-rigidity", "nfe": 4}
    content["hypotheses"].append(late)
    study.write_text(yaml.safe_dump(content))

    def stated() -> list[str]:
        assert main([str(folder), "--study", str(study)]) == 0, capsys.readouterr().err
        assert f"| {told} |" in (folder / "report.md").read_text()
        return [hypothesis.stated for hypothesis in read_results(folder).hypotheses]

    told = "after"
    assert stated() == ["before"] * known + ["after"]
    record = read_sealed(folder / "stated.json")
    write_sealed(folder / "stated.json", {**record, "last_job_ended": None})
    told = "during"
    assert stated() == ["before"] * known + ["during"]


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
