"""Claims of a paper: which hypotheses they name, their verdicts, and the report's section."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.report.build import write_report
from benchmarks.report.model.model import View
from benchmarks.report.sections.summary import answer, claims_sentence
from benchmarks.stats.model.schema import HypothesisResult, Results, Verdict
from benchmarks.stats.verdicts import judge
from benchmarks.study.entries.claims import Claim
from benchmarks.study.schema import load_study, read_study, select_arms
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.storage import plain
from tests.benchmarks.test_results import build

HYPOTHESES = [
    {"name": "first", "a": "dmd", "b": "consistency", "metric": "digits-fd", "nfe": 1},
    {"a": "sc-dmd", "b": "dmd", "metric": "digits-fd", "nfe": 1},
    {"name": "third", "a": "sc-dmd", "b": "consistency", "metric": "digits-fd", "nfe": 4},
]


def study_with(claims: Any, hypotheses: Any = HYPOTHESES) -> Any:
    content = {**read_study("quick")[0], "match": "updates", "claims": claims}
    content["hypotheses"] = hypotheses
    return load_study(content, "my.yaml")


def test_hypotheses_are_named_or_counted() -> None:
    (claim,) = study_with([{"claim": "it helps", "hypotheses": ["third", 0, 1]}]).claims
    assert claim == Claim(claim="it helps", source="", hypotheses=[2, 0, 1])


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        (
            [{"claim": "a", "hypotheses": ["frist"]}],
            "claims.0.hypotheses: unknown hypothesis 'frist'; did",
        ),
        (
            [{"claim": "a", "hypotheses": [3]}],
            "claims.0.hypotheses: there is no hypothesis 3; the study has",
        ),
        ([{"claim": "a", "hypotheses": [-1]}], "there is no hypothesis -1"),
        ([{"claim": "a", "hypotheses": []}], "claims.0.hypotheses"),
        ([{"claim": "", "hypotheses": [0]}], "claims.0.claim"),
        ([{"claim": "a", "hypothesis": [0]}], "did you mean 'hypotheses'"),
        ([{"hypotheses": [0]}], "claims.0.claim: this key is required"),
    ],
)
def test_a_wrong_claim_is_one_line(claims: Any, said: str) -> None:
    with pytest.raises(ZooError) as caught:
        study_with(claims)
    text = str(caught.value)
    assert said in text and text.startswith("my.yaml: ") and "\n" not in text


def test_a_name_is_of_one_hypothesis() -> None:
    with pytest.raises(ZooError, match="hypotheses: 'first' is the name of several"):
        study_with([], [HYPOTHESES[0], HYPOTHESES[0]])


def test_chosen_arms_keep_the_claims_whose_hypotheses_are_all_there() -> None:
    claims = [{"claim": "all", "hypotheses": [0, 1]}, {"claim": "one", "hypotheses": ["third"]}]
    chosen = select_arms(study_with(claims), ["consistency", "sc-dmd"], "my.yaml")
    assert [hypothesis.name for hypothesis in chosen.hypotheses] == ["third"]
    assert [(claim.claim, claim.hypotheses) for claim in chosen.claims] == [("one", [0])]


def test_a_study_without_claims_has_no_such_key() -> None:
    content = plain(load_study(read_study("digits")[0], "digits"))
    assert "claims" not in content and content["hypotheses"]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported"], "supported"),
        (["supported", "supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported", "not measured"], "inconclusive"),
        (["supported", "contradicted"], "contradicted"),
        (["not measured", "contradicted"], "contradicted"),
        (["not measured", "not measured"], "not measured"),
        (["not measured", "inconclusive"], "inconclusive"),
    ],
)
def test_a_claim_is_as_good_as_all_of_its_hypotheses(
    verdicts: list[Verdict], expected: Verdict
) -> None:
    claim = Claim(claim="a", hypotheses=list(range(len(verdicts))))
    (judged,) = judge([claim], [decided(verdict) for verdict in verdicts])
    assert judged.verdict == expected


def decided(verdict: Verdict) -> HypothesisResult:
    stated = load_study(read_study("digits")[0], "digits").hypotheses[0]
    return HypothesisResult(
        **stated.model_dump(), comparison=None, p_holm=None, verdict=verdict, stated="before"
    )


CLAIMS = [
    {"claim": "the last is <b>best</b>", "source": "arXiv 0000.00000, table 5", "hypotheses": [0]},
    {"claim": "and worst", "source": "", "hypotheses": [0, 1]},
    {"claim": "nobody looked", "source": "", "hypotheses": [3]},
]


@pytest.fixture(scope="module")
def results(make_study: Callable[..., Any]) -> tuple[Any, Results]:
    made = make_study(nfes=(1, 4))
    absent = {"metric": "absent", "nfe": 1, "a": "dmd", "b": "consistency"}
    made.study["hypotheses"] = [*made.study["hypotheses"], absent]
    made.study["claims"] = CLAIMS
    return made, build(made)


def test_results_have_the_verdicts(results: tuple[Any, Results]) -> None:
    _, found = results
    assert [claim.verdict for claim in found.claims] == [
        "supported",
        "contradicted",
        "not measured",
    ]
    assert [claim.hypotheses for claim in found.claims] == [[0], [0, 1], [3]]


def test_the_answer_begins_with_them(results: tuple[Any, Results]) -> None:
    assert answer(View(results[1]))[0] == (
        "Of 3 claims that this study tests: 1 supported, 1 contradicted, 1 not measured. "
        "Supported: the last is <b>best</b>."
    )


def test_the_answer_counts_hypotheses_where_they_are_more(results: tuple[Any, Results]) -> None:
    verdicts: list[Verdict] = ["supported", "inconclusive", "supported", "contradicted"]
    hypotheses = [decided(verdict) for verdict in verdicts]
    claims = [Claim(claim="it helps", hypotheses=[0, 1, 2]), Claim(claim="new", hypotheses=[0])]
    changes = {"claims": judge(claims, hypotheses), "hypotheses": hypotheses}
    assert claims_sentence(results[1].model_copy(update=changes)) == (
        "Of 2 claims that this study tests: 1 supported, 1 inconclusive (of the 3 hypotheses "
        "behind them: 2 supported, 1 inconclusive). Supported: new."
    )


def test_results_without_claims_have_none(make_study: Callable[..., Any]) -> None:
    assert build(make_study(nfes=(1,))).claims == []


def test_the_report_has_a_section(results: tuple[Any, Results], tmp_path: Any) -> None:
    made, found = results
    write_report(found, made.measured, tmp_path)
    for name in ("index.html", "report.md"):
        text = (tmp_path / name).read_text()
        place = text.index("What the paper claims, and what these data show")
        section = text[place : text.index("Directional hypotheses from the study file")]
        for part in ("arXiv 0000.00000, table 5", "and worst", "nobody looked", "not measured"):
            assert part in section
        assert "<b>best</b>" not in section
        assert section.count("contradicted: ") == 1
        low = f"{abs(found.hypotheses[0].comparison.low):.4f}"
        assert section.count(low) == 2  # in both claims that it belongs to


def test_a_report_without_claims_has_no_section(
    make_study: Callable[..., Any], tmp_path: Any
) -> None:
    made = make_study(nfes=(1,))
    write_report(build(made), made.measured, tmp_path)
    for name in ("index.html", "report.md"):
        assert "What the paper claims" not in (tmp_path / name).read_text()
