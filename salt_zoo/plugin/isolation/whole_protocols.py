"""Protocols are met as a whole or not at all: half of one would silently be none."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from salt_zoo.core.protocols import (
    Backbone,
    BackboneDefaults,
    Dataset,
    Exportable,
    ExportsLora,
    MaskedForward,
    NetworkObjective,
    Objective,
    Stateful,
)
from salt_zoo.plugin.isolation.foreign import BrokenPart

#: By kind what every part of it must be. (Methods and metrics: `checked_method`, `checked_metric`.)
REQUIRED: dict[str, type] = {"objective": Objective, "backbone": Backbone, "dataset": Dataset}
#: By kind what a part may also be. One with a single member cannot be met by half.
OPTIONAL: dict[str, Sequence[type]] = {
    "method": (Stateful,),
    "objective": (NetworkObjective, Stateful),
    "backbone": (Exportable, ExportsLora),
    "network": (MaskedForward,),
}


def check_protocols(part: Any, kind: str, title: str) -> None:
    """Refuse a part that has some of a protocol's members and not all.

    Args:
        kind: of the part, or `network`.
        title: what the part is called in the error.

    Raises:
        BrokenPart: what is missing, and of which protocol.
    """
    if kind in REQUIRED:
        check_required(part, REQUIRED[kind], title)
    for protocol in OPTIONAL.get(kind, ()):
        names = own_members(protocol)
        there = [name for name in names if not _is_missing(_member(part, name))]
        if there and len(there) < len(names):
            missing = [name for name in names if name not in there]
            raise BrokenPart(
                f"{title}: it has {_listed(there)} and lacks {_listed(missing)}; write all of "
                f"{_place(protocol)}, or none"
            )


def check_required(part: Any, protocol: type, title: str) -> None:
    """Refuse a part that lacks a member of a protocol which it has to have.

    Raises:
        BrokenPart: what is missing.
    """
    missing = [name for name in own_members(protocol) if _member(part, name) is _ABSENT]
    if missing:
        defaults = protocol is Backbone and any(name in vars(BackboneDefaults) for name in missing)
        hint = f", and inherit {_place(BackboneDefaults)}" if defaults else ""
        raise BrokenPart(f"{title}: it lacks {_listed(missing)}; see {_place(protocol)}{hint}")


def own_members(protocol: type) -> list[str]:
    """The public members that a protocol itself declares, not those that it inherits."""
    names = {**vars(protocol), **inspect.get_annotations(protocol)}
    return [name for name in names if not name.startswith("_")]


class _Absent:
    """Of a member that is not there, as against one that is None."""


_ABSENT = _Absent()


def _member(part: Any, name: str) -> Any:
    """A member without computing it: a property stays one."""
    found = inspect.getattr_static(part, name, _ABSENT)
    if found is _ABSENT:  # a wrapper may hand on what it lacks itself
        found = getattr(part, name, _ABSENT)
    return found


def _is_missing(member: Any) -> bool:
    return member is None or member is _ABSENT


def _place(protocol: type) -> str:
    """Where a plugin's author finds it."""
    module = protocol.__module__
    module = "salt_zoo.core.protocols" if module.startswith("salt_zoo.core.") else module
    return f"{module}.{protocol.__name__}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
