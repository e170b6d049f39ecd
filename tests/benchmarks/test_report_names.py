"""Texts of any origin fit in every file of a report, and no two things share a file."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.build import write_report
from benchmarks.runner.jobs.provenance import published
from benchmarks.stats.results import build_results
from benchmarks.stats.results_file import write_results
from benchmarks.study.text import FileNames, shown_text

HOSTILE = "a\x1b[31m\x07\x00b\ud800" + "x" * 2000


@given(st.text(st.characters(exclude_categories=())))
def test_a_shown_text_can_be_written_as_xml(text: str):
    ElementTree.fromstring(f"<a>{shown_text(text).replace('&', '&amp;').replace('<', '&lt;')}</a>")


@given(st.lists(st.lists(st.text("ab.-_ É", max_size=4), max_size=3).map(tuple), unique=True))
def test_different_things_have_different_files(things: list[tuple[str, ...]]):
    names = FileNames("costs.csv")
    made = {thing: names.of(".csv", *thing) for thing in things}
    of_parts = {tuple(part for part in thing if part) for thing in things}
    assert len(set(made.values())) == len(of_parts)
    assert "costs.csv" not in made.values()
    assert made == {thing: names.of(".csv", *thing) for thing in things}


def test_a_report_of_hostile_names(make_study, tmp_path: Path):
    made = make_study(arms={"plain": 0.5, "other": 0.4}, seeds=2, nfes=(1, 2), prompts=4)
    accuracy = next(metric for metric in made.metrics if metric.name == "accuracy")
    names = {"accuracy": "costs", "rigidity": "clip.score", "defect": "clip-score"}
    metrics = [replace(m, name=names.get(m.name, m.name)) for m in made.metrics]
    measured = [
        replace(
            one,
            arm=HOSTILE if one.arm == "other" else one.arm,
            rows={names.get(name, name): rows for name, rows in one.rows.items()},
        )
        for one in made.measured
    ]
    costs = [replace(c, arm=HOSTILE if c.arm == "other" else c.arm) for c in made.costs]
    study = {**made.study, "title": HOSTILE, "hypotheses": [], "arms": []}
    results = build_results(study, measured, costs, metrics, made.prompts, {}, resamples=20)
    write_results(results, measured, tmp_path)
    write_report(results, measured, tmp_path, [(HOSTILE, f"a\n\n{HOSTILE}")])
    for path in (tmp_path / "figures").glob("*.svg"):
        ElementTree.fromstring(path.read_text(encoding="utf-8"))
    tables = sorted(path.name for path in (tmp_path / "tables").glob("c*.csv"))
    assert tables == [
        "clip-score-2.csv",
        "clip-score.csv",
        "comparisons.csv",
        "costs-2.csv",
        "costs.csv",
    ]
    assert accuracy.direction in (tmp_path / "tables" / "costs-2.csv").read_text()
    assert "\x1b" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["study"]["title"] == HOSTILE
    arms = set(pandas.read_parquet(tmp_path / "samples.parquet")["arm"])
    assert HOSTILE.replace("\ud800", "\N{REPLACEMENT CHARACTER}") in arms


PATHS = {
    "/home/ada/x.pt": "x.pt",
    "plugin '/home/ada/my/plugin.py': RuntimeError": "plugin 'plugin.py': RuntimeError",
    "error: /a/b/c.safetensors: no such file": "error: c.safetensors: no such file",
    "~/secret/x.pt": "x.pt",
    "(see /var/lib/x/log.txt)": "(see log.txt)",
    "and/or, 3/4, a / b": "and/or, 3/4, a / b",
    "https://example.org/a/b": "https://example.org/a/b",
    "Wan-AI/Wan2.1-T2V-1.3B": "Wan-AI/Wan2.1-T2V-1.3B",
    "weights/x.pt": "weights/x.pt",
    "/": "/",
}


@pytest.mark.parametrize("text", PATHS)
def test_private_paths_are_not_published(text: str):
    assert published({text: [text]}) == {PATHS[text]: [PATHS[text]]}


def test_paths_with_blanks_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "my own files"
    folder.mkdir()
    (folder / "the weights.pt").touch()
    assert published(str(folder / "the weights.pt")) == "the weights.pt"
    monkeypatch.setenv("HOME", str(folder))
    assert published(f"cannot read {folder}/x.pt") == "cannot read x.pt"
