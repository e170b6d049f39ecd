"""What was measured of a part and follows from its options: shared by all that are made alike."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

_OF: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def facts(part: Any) -> dict[Any, Any]:
    """The facts about a part, to read and to add to; of one that cannot be a key none are kept."""
    try:
        return _OF.setdefault(part, {})
    except TypeError:
        return {}


def share(part: Any, common: dict[Any, Any]) -> None:
    """From now on `common` are the facts about `part`."""
    with suppress(TypeError):  # a plugin's object may be no key
        _OF[part] = common
