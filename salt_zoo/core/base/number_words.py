"""Numbers as text: one grammar for files, `--set`, keys and the command line.

That of YAML 1.2's core schema (section 10.3.2), without leading zeros and octal numbers: to some
readers they are other numbers. Python and pydantic read more than it knows: `1_000`, ` 8`, `٣`.
"""

from __future__ import annotations

import re

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_LEADING_ZEROS = re.compile(r"\s*[-+]?0[0-9_]")


def is_number(text: str) -> bool:
    """Whether a word is a finite number, but for its size."""
    return bool(_FLOAT.fullmatch(text) or _HEXADECIMAL.fullmatch(text))


def number_in(text: str) -> int | float:
    """The number that such a word is.

    Raises:
        ValueError: it is none.
    """
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    raise ValueError(f"{text!r} is no number")


def why_no_number(text: str) -> str | None:
    """Why a word is none, where it may look like one to its writer."""
    if is_number(text):
        return None
    if _LEADING_ZEROS.match(text):
        return "should be a number without leading zeros (some read those as octal)"
    if "_" in text and is_number(text.replace("_", "").strip()):
        return "should be a number without underscores (YAML 1.2 has none)"
    if is_number(text.strip()):
        return "should be a number without blanks around it"
    return None
