"""Verdicts on hypotheses, adjusted for their number, and on the claims that rest on them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.stats.intervals.bootstrap import holm
from benchmarks.stats.model.entries import Comparison
from benchmarks.stats.model.schema import ClaimResult, HypothesisResult, Verdict
from benchmarks.study.entries.claims import Claim
from benchmarks.study.entries.config import Hypothesis
from benchmarks.study.stated import Stated

#: Below this adjusted level a hypothesis is decided.
LEVEL = 0.05


def decide(
    hypotheses: Sequence[Hypothesis],
    comparisons: Sequence[Comparison | None],
    stated: Sequence[Stated],
) -> list[HypothesisResult]:
    """Hypotheses with their comparisons and verdicts, by Holm's levels over all measured ones.

    A difference without an interval is inconclusive.
    """
    levels = [c.p if c else None for c in comparisons]
    adjusted = iter(holm([p for p in levels if p is not None]))
    results = []
    for hypothesis, comparison, when in zip(hypotheses, comparisons, stated, strict=True):
        p_holm = next(adjusted) if comparison and comparison.p is not None else None
        results.append(
            HypothesisResult(
                **hypothesis.model_dump(),
                comparison=comparison,
                p_holm=p_holm,
                verdict=_verdict(comparison, p_holm),
                stated=when,
            )
        )
    return results


def _verdict(comparison: Comparison | None, p_holm: float | None) -> Verdict:
    if comparison is None or comparison.difference is None:
        return "not measured"
    if p_holm is None or p_holm >= LEVEL or comparison.better is None:
        return "inconclusive"
    return "supported" if comparison.better == "a" else "contradicted"


def judge(claims: Sequence[Claim], hypotheses: Sequence[HypothesisResult]) -> list[ClaimResult]:
    """Every claim with its verdict, from those of its hypotheses, which are given by index.

    Verdicts of hypotheses are adjusted for their number, so that a claim with many of them is no
    sooner contradicted than one with few.
    """
    results = []
    for claim in claims:
        indices = [int(index) for index in claim.hypotheses]
        verdicts = {hypotheses[index].verdict for index in indices}
        verdict: Verdict = "contradicted" if "contradicted" in verdicts else "inconclusive"
        if len(verdicts) == 1:
            (verdict,) = verdicts
        results.append(
            ClaimResult(claim=claim.claim, source=claim.source, hypotheses=indices, verdict=verdict)
        )
    return results
