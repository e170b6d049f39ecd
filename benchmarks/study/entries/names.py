"""Names that are folders and texts that are shown, as a study's file may give them."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from salt_zoo.core.base.config import said

#: Safe as a folder on every file system, with room for what is added to it.
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._+-]*[A-Za-z0-9_+-])?")
_LONGEST = 100


def _label(name: str) -> str:
    if len(name) > _LONGEST:
        raise ValueError(
            f"is a folder's name and has {len(name)} letters; write at most {_LONGEST}"
        )
    if not _LABEL.fullmatch(name):
        raise ValueError(
            "is a folder's name: write letters a to z, digits, '_', and within it '-', '+' and '.'"
        )
    return name


def _one_folder_each(arms: dict[str, Any]) -> dict[str, Any]:
    """Some file systems do not tell capital letters from small ones."""
    seen: dict[str, str] = {}
    for label in arms:
        try:
            _label(label)
        except ValueError as error:
            raise said(f"the label {label[:40]!r} {error}") from None
        other = seen.setdefault(label.casefold(), label)
        if other != label:
            raise said(f"{label!r} and {other!r} are one name where letters' case is not kept")
    return arms


def _printable(text: str) -> str:
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t":
            raise ValueError(f"has the control character {letter!r}; leave it out")
    return text


#: The name of a study or an arm.
Label = Annotated[str, AfterValidator(_label)]
#: Arms by label, of which there is at least one.
Arms = Annotated[dict[str, dict[str, Any]], Field(min_length=1), AfterValidator(_one_folder_each)]
#: One line, and paragraphs.
Title = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=20_000), AfterValidator(_printable)]
