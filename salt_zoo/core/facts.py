"""What was measured of a part and follows from its options: shared by all that are made alike."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

_OF: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def facts(part: Any) -> dict[Any, Any]:
    """The facts about a part, to read and to add to."""
    return _OF.setdefault(part, {})


def share(part: Any, common: dict[Any, Any]) -> None:
    """From now on `common` are the facts about `part`."""
    with suppress(TypeError):  # a plugin's object that cannot be a key has facts of its own
        _OF[part] = common
