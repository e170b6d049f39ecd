"""What a paper claims, and what a study's outcomes say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from benchmarks.study.names import Text, Title
from salt_zoo.core.config import StrictModel
from salt_zoo.core.errors import ZooError, did_you_mean


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
