"""The type of an option in plain words, and the range of its values."""

from __future__ import annotations

import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from salt_zoo.core.base.annotations import members, takes_none

_WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    dict: "group",
    list: "list",
    Any: "anything",
    object: "anything",
}
_PLURALS = {
    "whole number": "whole numbers",
    "number": "numbers",
    "text": "texts",
    "path": "paths",
    "group": "groups",
}
#: Limits of a number or a length, by the attribute of the object that annotates the type.
_LIMITS = {
    "ge": ">= {}",
    "gt": "> {}",
    "le": "<= {}",
    "lt": "< {}",
    "multiple_of": "multiple of {}",
    "min_length": "length >= {}",
    "max_length": "length <= {}",
}


def words(annotation: Any) -> str:
    """A type in plain words.

    >>> words(list[int] | None)
    'list of whole numbers or null'
    >>> words(Literal["sde", "ode"])
    'one of sde | ode'
    """
    choices: list[str] = []
    others: list[str] = []
    for member in members(annotation):
        if typing.get_origin(member) is Literal:
            choices += [_choice(value) for value in typing.get_args(member) if value is not None]
        elif isinstance(member, type) and issubclass(member, Enum):
            choices += [_choice(value.value) for value in member]
        elif member is not type(None):
            others.append(_one(member))
    if choices:
        others.append(f"one of {' | '.join(dict.fromkeys(choices))}")
    if takes_none(annotation):
        others.append("null")
    return " or ".join(dict.fromkeys(others))


def _one(member: Any) -> str:
    """The words of a type that is no union."""
    origin, inner = typing.get_origin(member) or member, typing.get_args(member)
    if not inner and origin in _WORDS:
        return _WORDS[origin]
    if not isinstance(origin, type):
        return str(member)
    if issubclass(origin, BaseModel):
        return "group"
    if issubclass(origin, Mapping):
        keys, values = map(words, inner) if len(inner) == 2 else ("text", "anything")
        return "group" if values == "anything" else f"group {{{keys}: {values}}}"
    if issubclass(origin, Collection) and not issubclass(origin, str | bytes):
        return _list(origin, [words(one) for one in inner if one is not Ellipsis], inner)
    return origin.__name__


def _list(origin: type, entries: list[str], inner: tuple[Any, ...]) -> str:
    if not entries:
        return "list"
    fixed = issubclass(origin, tuple) and Ellipsis not in inner
    if fixed and len(set(entries)) > 1:
        return f"list [{', '.join(entries)}]"
    many = f"list of {len(entries)}" if fixed else "list of"
    entry = entries[0]
    return f"{many} {_PLURALS[entry]}" if entry in _PLURALS else f"list, each {entry}"


def _choice(value: Any) -> str:
    """A value as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def limits(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """The range of the values in words, empty where any value of the type will do.

    `metadata` are those of the field, which pydantic takes off its annotation.

    >>> limits(Annotated[float, FieldInfo(annotation=float, ge=0, lt=1)])
    '>= 0, < 1'
    """
    return "; ".join(dict.fromkeys(_limits(annotation, metadata)))


def _limits(annotation: Any, metadata: Iterable[Any]) -> Iterator[str]:
    if own := ", ".join(_own(metadata)):
        yield own
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield from _limits(inner[0], inner[1:])
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from (f"keys {one}" for one in _limits(inner[0], ()))
        yield from (f"values {one}" for one in _limits(inner[1], ()))
    elif isinstance(origin, type) and issubclass(origin, Collection):
        yield from (f"each {one}" for part in inner for one in _limits(part, ()))
    elif origin is not Literal:  # a union
        for member in inner:
            yield from _limits(member, ())


def _own(metadata: Iterable[Any]) -> Iterator[str]:
    """The limits among the metadata of one annotation."""
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from _own(one.metadata)
            continue
        for attribute, text in _LIMITS.items():
            value = getattr(one, attribute, None)  # any object may annotate a type
            if isinstance(value, int | float):
                yield text.format(value)
