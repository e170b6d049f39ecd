"""The first difference between two headers, in words."""

from __future__ import annotations

from typing import Any


def difference(there: Any, here: Any, key: str = "") -> str | None:
    """The first key whose value is another, with both values; None where all are the same."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            inner = f"{key}.{name}" if key else name
            if found := difference(there.get(name), here.get(name), inner):
                return found
        return None
    return None if there == here else f"{key} is {_short(there)} there and {_short(here)} here"


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
