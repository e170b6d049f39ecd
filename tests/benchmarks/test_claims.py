"""Claims of a paper: which outcomes they name, their verdicts, and the report's section."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.report.build import write_report
from benchmarks.report.model import View
from benchmarks.report.summary import answer, claims_sentence
from benchmarks.stats.verdicts import judge
from benchmarks.study.claims import Claim
from benchmarks.study.schema import load_study, read_study, select_arms
from salt_zoo.core.errors import ZooError
from salt_zoo.io.storage import plain
from tests.benchmarks.test_results import build

OUTCOMES = [
    {"name": "first", "a": "dmd", "b": "consistency", "metric": "digits-fd", "nfe": 1},
    {"a": "sc-dmd", "b": "dmd", "metric": "digits-fd", "nfe": 1},
    {"name": "third", "a": "sc-dmd", "b": "consistency", "metric": "digits-fd", "nfe": 4},
]


def study_with(claims: Any, outcomes: Any = OUTCOMES) -> Any:
    content = {**read_study("quick")[0], "match": "updates", "primary": outcomes, "claims": claims}
    return load_study(content, "my.yaml")


def test_outcomes_are_named_or_counted() -> None:
    (claim,) = study_with([{"claim": "it helps", "outcomes": ["third", 0, 1]}]).claims
    assert claim == Claim(claim="it helps", source="", outcomes=[2, 0, 1])


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        (
            [{"claim": "a", "outcomes": ["frist"]}],
            "claims.0.outcomes: unknown outcome 'frist'; did",
        ),
        (
            [{"claim": "a", "outcomes": [3]}],
            "claims.0.outcomes: there is no outcome 3; primary has",
        ),
        ([{"claim": "a", "outcomes": [-1]}], "there is no outcome -1"),
        ([{"claim": "a", "outcomes": []}], "claims.0.outcomes"),
        ([{"claim": "", "outcomes": [0]}], "claims.0.claim"),
        ([{"claim": "a", "outcome": [0]}], "did you mean 'outcomes'"),
        ([{"outcomes": [0]}], "claims.0.claim: this key is required"),
    ],
)
def test_a_wrong_claim_is_one_line(claims: Any, said: str) -> None:
    with pytest.raises(ZooError) as caught:
        study_with(claims)
    text = str(caught.value)
    assert said in text and text.startswith("my.yaml: ") and "\n" not in text


def test_a_name_is_of_one_outcome() -> None:
    with pytest.raises(ZooError, match="primary: 'first' is the name of several"):
        study_with([], [OUTCOMES[0], OUTCOMES[0]])


def test_chosen_arms_keep_the_claims_whose_outcomes_are_all_there() -> None:
    claims = [{"claim": "all", "outcomes": [0, 1]}, {"claim": "one", "outcomes": ["third"]}]
    chosen = select_arms(study_with(claims), ["consistency", "sc-dmd"], "my.yaml")
    assert [outcome.name for outcome in chosen.primary] == ["third"]
    assert [(claim.claim, claim.outcomes) for claim in chosen.claims] == [("one", [0])]


def test_a_study_without_claims_is_as_before() -> None:
    content = plain(load_study(read_study("digits")[0], "digits"))
    assert "claims" not in content
    assert content["primary"] and not any("name" in outcome for outcome in content["primary"])


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["shown"], "shown"),
        (["shown", "shown"], "shown"),
        (["shown", "not shown"], "not shown"),
        (["shown", "not measured"], "not shown"),
        (["shown", "opposite"], "opposite"),
        (["not measured", "opposite"], "opposite"),
        (["not measured", "not measured"], "not measured"),
        (["not measured", "not shown"], "not shown"),
    ],
)
def test_a_claim_is_as_good_as_all_of_its_outcomes(verdicts: list[str], expected: str) -> None:
    claim = {"claim": "a", "outcomes": list(range(len(verdicts)))}
    (found,) = judge([claim], [{"verdict": verdict} for verdict in verdicts])
    assert found["verdict"] == expected


CLAIMS = [
    {"claim": "the last is <b>best</b>", "source": "arXiv 0000.00000, table 5", "outcomes": [0]},
    {"claim": "and worst", "source": "", "outcomes": [0, 1]},
    {"claim": "nobody looked", "source": "", "outcomes": [3]},
]


@pytest.fixture(scope="module")
def results(make_study: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    made = make_study(nfes=(1, 4))
    absent = {"metric": "absent", "nfe": 1, "a": "dmd", "b": "consistency"}
    made.study["primary"] = [*made.study["primary"], absent]
    made.study["claims"] = CLAIMS
    return made, build(made)


def test_results_have_the_verdicts(results: tuple[Any, dict[str, Any]]) -> None:
    _, found = results
    assert [claim["verdict"] for claim in found["claims"]] == ["shown", "opposite", "not measured"]
    assert [claim["outcomes"] for claim in found["claims"]] == [[0], [0, 1], [3]]


def test_the_answer_begins_with_them(results: tuple[Any, dict[str, Any]]) -> None:
    assert answer(View(results[1]))[0] == (
        "Of 3 claims that this study tests: 1 shown, 1 opposite, 1 not measured. "
        "Shown: the last is <b>best</b>."
    )


def test_the_answer_counts_outcomes_where_they_are_more() -> None:
    outcomes = [{"verdict": verdict} for verdict in ("shown", "not shown", "shown", "opposite")]
    claims = [{"claim": "it helps", "outcomes": [0, 1, 2]}, {"claim": "it is new", "outcomes": [0]}]
    results = {"claims": judge(claims, outcomes), "primary": outcomes}
    assert claims_sentence(results) == (
        "Of 2 claims that this study tests: 1 shown, 1 not shown (of the 3 outcomes that they rest "
        "on: 2 shown, 1 not shown). Shown: it is new."
    )


def test_results_without_claims_are_as_before(make_study: Callable[..., Any]) -> None:
    assert "claims" not in build(make_study(nfes=(1,)))


def test_the_report_has_a_section(results: tuple[Any, dict[str, Any]], tmp_path: Any) -> None:
    made, found = results
    write_report(found, made.measured, tmp_path)
    for name in ("index.html", "report.md"):
        text = (tmp_path / name).read_text()
        place = text.index("What the paper claims, and what these data show")
        section = text[place : text.index("Outcomes stated in the study")]
        for part in ("arXiv 0000.00000, table 5", "and worst", "nobody looked", "not measured"):
            assert part in section
        assert "<b>best</b>" not in section
        assert section.count("opposite: ") == 1
        shown = found["primary"][0]
        low = f"{abs(shown['low']):.4f}"
        assert section.count(low) == 2  # in both claims that it belongs to


def test_a_report_without_claims_has_no_section(
    make_study: Callable[..., Any], tmp_path: Any
) -> None:
    made = make_study(nfes=(1,))
    write_report(build(made), made.measured, tmp_path)
    for name in ("index.html", "report.md"):
        assert "What the paper claims" not in (tmp_path / name).read_text()
