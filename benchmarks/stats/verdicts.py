"""What outcomes show, adjusted for their number, and what that says of a paper's claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.stats.bootstrap import holm

#: Below this adjusted level an outcome is shown.
LEVEL = 0.05


def decide(outcomes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Outcomes with their comparisons, each with its `verdict`, adjusted for their number.

    `shown` where the interval excludes zero on the claimed side and Holm's adjusted level
    (`p_holm`) is below 0.05, `opposite` likewise on the other side, `not measured` without a
    comparison, else `not shown`. Holm's levels take all measured outcomes of the
    study together.
    """
    made = [outcome for outcome in outcomes if outcome.get("p") is not None]
    adjusted = iter(holm([outcome["p"] for outcome in made]))
    decided = []
    for outcome in outcomes:
        if outcome.get("p") is None:  # a difference without an interval shows nothing
            difference = outcome.get("difference")
            measured = difference is not None and math.isfinite(difference)
            decided.append({**outcome, "verdict": "not shown" if measured else "not measured"})
            continue
        p = next(adjusted)
        side = outcome["favours"] if p < LEVEL else None
        found = {"a": "shown", "b": "opposite", None: "not shown"}[side]
        decided.append({**outcome, "p_holm": p, "verdict": found})
    return decided


def judge(
    claims: Sequence[Mapping[str, Any]], primary: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every claim with its `verdict`; `primary` are the outcomes with theirs.

    `shown` if all of its outcomes are, `opposite` if any of them is, `not measured` if none was.
    Outcomes' verdicts are adjusted for their number, so that a claim with many of them is no
    sooner called opposite than one with few.
    """
    found = []
    for claim in claims:
        verdicts = {primary[place]["verdict"] for place in claim["outcomes"]}
        if len(verdicts) == 1:
            (verdict,) = verdicts
        else:
            verdict = "opposite" if "opposite" in verdicts else "not shown"
        found.append({**claim, "verdict": verdict})
    return found
