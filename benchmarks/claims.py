"""What a paper claims, and what a study's outcomes say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from benchmarks.names import Text, Title
from benchmarks.statistics import holm
from salt_zoo.core.config import StrictModel
from salt_zoo.core.errors import ZooError, did_you_mean

#: Below this adjusted level an outcome is shown.
LEVEL = 0.05


class Claim(StrictModel):
    """A sentence of a paper, in our words, and the outcomes that it stands or falls with."""

    claim: Annotated[Text, Field(min_length=1)]
    #: Where it is made, for instance `arXiv 2604.03118, table 5`.
    source: Title = ""
    #: Entries of `primary`, by `name` or by place, counted from 0.
    outcomes: Annotated[list[int | str], Field(min_length=1)]


def by_place(claims: Sequence[Claim], names: Sequence[str | None], where: str) -> list[Claim]:
    """The claims with their outcomes by place; `names` are those of all outcomes.

    Raises:
        ZooError: two outcomes have one name, or there is no such outcome.
    """
    known = [name for name in names if name is not None]
    for name in known:
        if known.count(name) > 1:
            raise ZooError(f"{where}: primary: {name!r} is the name of several outcomes")
    found = []
    for number, claim in enumerate(claims):
        places = []
        for outcome in claim.outcomes:
            here = f"{where}: claims.{number}.outcomes"
            if isinstance(outcome, str) and outcome not in known:
                raise ZooError(
                    f"{here}: unknown outcome {outcome!r}; {did_you_mean(outcome, known)}"
                )
            place = names.index(outcome) if isinstance(outcome, str) else outcome
            if not 0 <= place < len(names):
                raise ZooError(f"{here}: there is no outcome {place}; primary has {len(names)}")
            places.append(place)
        found.append(claim.model_copy(update={"outcomes": places}))
    return found


def among(claims: Sequence[Claim], places: Sequence[int]) -> list[Claim]:
    """The claims when only the outcomes at `places` are left: those with all of theirs."""
    return [
        claim.model_copy(update={"outcomes": [places.index(int(o)) for o in claim.outcomes]})
        for claim in claims
        if set(claim.outcomes) <= set(places)
    ]


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
