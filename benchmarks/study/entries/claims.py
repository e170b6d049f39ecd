"""The claims of a paper that a study tests, each by hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from benchmarks.study.entries.names import Text, Title
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError, did_you_mean


class Claim(StrictModel):
    """A sentence of a paper, in our words, and the hypotheses that it stands or falls with."""

    claim: Annotated[Text, Field(min_length=1)]
    #: Where it is made, for instance `arXiv 2604.03118, table 5`.
    source: Title = ""
    #: Entries of the study's `hypotheses`, by `name` or by index, counted from 0.
    hypotheses: Annotated[list[int | str], Field(min_length=1)]


def by_index(claims: Sequence[Claim], names: Sequence[str | None], where: str) -> list[Claim]:
    """The claims with their hypotheses by index; `names` are those of all hypotheses.

    Raises:
        ZooError: two hypotheses have one name, or there is no such hypothesis.
    """
    known = [name for name in names if name is not None]
    for name in known:
        if known.count(name) > 1:
            raise ZooError(f"{where}: hypotheses: {name!r} is the name of several hypotheses")
    indexed = []
    for number, claim in enumerate(claims):
        here, indices = f"{where}: claims.{number}.hypotheses", []
        for hypothesis in claim.hypotheses:
            if isinstance(hypothesis, str) and hypothesis not in known:
                hint = did_you_mean(hypothesis, known)
                raise ZooError(f"{here}: unknown hypothesis {hypothesis!r}; {hint}")
            index = names.index(hypothesis) if isinstance(hypothesis, str) else hypothesis
            if not 0 <= index < len(names):
                raise ZooError(
                    f"{here}: there is no hypothesis {index}; the study has {len(names)}"
                )
            indices.append(index)
        indexed.append(claim.model_copy(update={"hypotheses": indices}))
    return indexed


def among(claims: Sequence[Claim], indices: Sequence[int]) -> list[Claim]:
    """The claims of a study that keeps only the hypotheses at `indices`: those with all of
    theirs."""
    return [
        claim.model_copy(update={"hypotheses": [indices.index(int(h)) for h in claim.hypotheses]})
        for claim in claims
        if set(claim.hypotheses) <= set(indices)
    ]
