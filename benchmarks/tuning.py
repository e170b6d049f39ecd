"""How a study's settings were chosen, as its file states it: a comparison is only as fair as the
tuning of its arms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from salt_zoo.config import StrictModel
from salt_zoo.errors import ZooError, did_you_mean


class Tuning(StrictModel):
    """What was tried before the study was run."""

    #: On whose prompts and noise the settings were looked at.
    split: Literal["train", "validation", "test"]
    #: How many settings were tried, by arm; every arm is named.
    settings: dict[str, Annotated[int, Field(ge=0)]]
    note: str = ""


def check_tuning(tuning: Tuning | None, arms: Iterable[str], where: str) -> None:
    """Every arm must be named, and nothing else.

    Raises:
        ZooError: one is not.
    """
    if tuning is None:
        return
    known = list(arms)
    for name in tuning.settings:
        if name not in known:
            raise ZooError(
                f"{where}: tuning.settings: unknown arm {name!r}; {did_you_mean(name, known)}"
            )
    if missing := [name for name in known if name not in tuning.settings]:
        raise ZooError(
            f"{where}: tuning.settings: lacks {', '.join(missing)}; write how many settings were "
            "tried for every arm, 0 for none"
        )
