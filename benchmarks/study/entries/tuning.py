"""How a study's settings were chosen, as its file states it: a comparison is only as fair as the
tuning of its arms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from benchmarks.study.entries.names import Text
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError, did_you_mean


class Tuning(StrictModel):
    """What was tried before the study was run."""

    #: On whose prompts and noise the settings were looked at.
    split: Literal["train", "validation", "test"]
    #: How many settings were tried, by arm; 0 for none.
    settings: dict[str, Annotated[int, Field(ge=0)]]
    note: Text = ""


def check_tuning(tuning: Tuning | None, arms: Iterable[str], where: str) -> None:
    """What is named must be an arm; of an arm that is not, the report says that nothing is stated.

    Raises:
        ZooError: something is named that is no arm.
    """
    if tuning is None:
        return
    known = list(arms)
    for name in tuning.settings:
        if name not in known:
            raise ZooError(
                f"{where}: tuning.settings: unknown arm {name!r}; {did_you_mean(name, known)}"
            )
