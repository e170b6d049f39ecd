"""Texts of others as a report can show them, and names of files that no two of them share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Letters of the longest text that a report shows whole.
MOST_TEXT = 1000
#: What XML does not have: control characters, and halves of a pair that stand alone.
_NOT_SHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def shown_text(text: str) -> str:
    """A text of any origin as every file of a report can hold it.

    >>> shown_text("a" + chr(27) + "[31mb")
    'a\N{REPLACEMENT CHARACTER}[31mb'
    """
    text = text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"
    return cleaned(text)


def cleaned(text: str) -> str:
    """The same at any length."""
    return _NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", text)


def encodable(text: str) -> str:
    """A text as UTF-8 can hold it; all but lone halves of a pair stays as it is."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def all_shown(content: Any) -> Any:
    """All texts and keys of results.json as a report shows them."""
    if isinstance(content, str):
        return shown_text(content)
    if isinstance(content, Mapping):
        return {shown_text(str(key)): all_shown(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [all_shown(value) for value in content]
    return content


class FileNames:
    """Names of the files of one folder: readable, safe, and different for different things."""

    def __init__(self, *taken: str) -> None:
        self._taken: dict[str, tuple[str, ...]] = {name: () for name in taken}

    def of(self, ending: str, *parts: str) -> str:
        """The name of the file of `parts`; empty ones are left out."""
        parts = tuple(part for part in parts if part)
        stem = "-".join(filter(None, map(slug, parts)))[:100] or "unnamed"
        number, name = 2, f"{stem}{ending}"
        while self._taken.setdefault(name, parts) != parts:
            name = f"{stem}-{number}{ending}"
            number += 1
        return name


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
