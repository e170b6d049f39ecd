"""What reports/README.md says of the committed reports is what they say."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.report.formats import level, listed
from benchmarks.stats.results_file import read_results
from benchmarks.stats.schema import Results

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports"


def words(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split())


PAGE = words(REPORTS / "README.md")


def minutes(name: str) -> int:
    """Of a study, from the beginning of its first job to the end of the last."""
    record = json.loads((REPORTS / name / "stated.json").read_text(encoding="utf-8"))
    began, ended = (
        datetime.fromisoformat(record[key]) for key in ("first_job_began", "last_job_ended")
    )
    return round((ended - began).total_seconds() / 60)


@pytest.fixture(scope="module")
def digits() -> Results:
    return read_results(REPORTS / "digits")


@pytest.mark.parametrize("name", ["quick", "digits", "self_forcing"])
def test_how_long_a_study_took(name: str) -> None:
    assert f"**{name}**: trained, measured and rendered, in {minutes(name)} minutes on" in PAGE


def test_how_long_the_first_command_takes() -> None:
    assert f"it takes {minutes('quick')} minutes on two slow cores" in words(ROOT / "README.md")
    assert f"twice: {minutes('quick')} minutes on two slow cores" in words(ROOT / "CHANGELOG.md")


def test_verdicts_of_digits(digits: Results) -> None:
    verdicts = Counter(hypothesis.verdict for hypothesis in digits.hypotheses)
    assert set(verdicts) == {"supported", "inconclusive"}
    told = (
        f"Of its {verdicts.total()} hypotheses {verdicts['supported']} are supported, none is "
        f"contradicted and {verdicts['inconclusive']} are inconclusive."
    )
    assert told in PAGE


def test_the_first_table_of_digits(digits: Results) -> None:
    assert digits.answer is not None and digits.answer.metric == "digits-fd"
    rows = digits.answer.rows
    assert {(row.best, row.verdict) for row in rows} == {("consistency", "inconclusive")}
    assert all(row.p_best is not None for row in rows)
    levels = listed([level(row.p_best or 0.0) for row in rows])
    told = (
        "By `digits-fd` consistency distillation has the lowest mean at every number of steps; "
        f"that it is the best of all arms is inconclusive at each (p = {levels}). Distilling is "
        "worth it at 1, 2 and 4 steps, inconclusive at 8."
    )
    assert told in PAGE
    worth = {row.nfe: row.worth for row in rows}
    assert worth == {1: "yes", 2: "yes", 4: "yes", 8: "inconclusive"}


def test_the_first_table_of_quick() -> None:
    answer = read_results(REPORTS / "quick").answer
    assert answer is not None
    rows = {row.nfe: row for row in answer.rows if row.backbone == "wan"}
    assert {row.best for row in rows.values()} == {"consistency"}
    verdicts = {nfe: row.verdict for nfe, row in rows.items()}
    assert verdicts == {1: "supported", 2: "inconclusive", 4: "supported", 8: "supported"}
    assert rows[8].worth == "no"
    assert "at 1, 4 and 8 steps (inconclusive at 2), and the undistilled network is" in PAGE


def test_windows_at_the_trainings_length() -> None:
    results = read_results(REPORTS / "self_forcing")
    pairs = [(f"{method}-full", f"{method}-window") for method in ("consistency", "dmd", "sc-dmd")]
    told = re.search(r"has a worse `(.+?)` and `(.+?)` with a window than .+? at 1, 2 and 4", PAGE)
    assert told
    for metric in told.groups():
        found = [
            comparison
            for comparison in results.comparisons
            if comparison.metric == metric
            and comparison.sampler == "sde"
            and (comparison.a, comparison.b) in pairs
        ]
        assert len(found) == 9
        assert all(one.significant and one.better == "a" for one in found)


@pytest.mark.parametrize(
    "page", [REPORTS / "README.md", ROOT / "README.md", *sorted(ROOT.glob("plugins/*/README.md"))],
    ids=lambda page: page.parent.name,
)  # fmt: skip
def test_no_arm_is_ahead_without_a_verdict(page: Path) -> None:
    """Pages say "better" with a verdict or an interval, or "has the lowest mean"."""
    assert not re.findall(r"\b(?:ahead|beats?|outperforms?)\b", words(page))
