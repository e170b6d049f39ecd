"""Variables of the environment that are on or off."""

from __future__ import annotations

import os

#: Words that switch one off, as no word does.
OFF = ("", "0", "false", "no", "off", "n", "f")


def is_on(name: str) -> bool:
    """Whether a variable is set to something that is not one of the words for off."""
    return os.environ.get(name, "").strip().lower() not in OFF
