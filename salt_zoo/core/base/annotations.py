"""What may stand at a place of a pydantic model, by the annotations of its fields."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union

from pydantic import BaseModel


def annotations_at(annotation: Any, loc: Sequence[int | str]) -> list[Any]:
    """The annotations of what stands at `loc` (keys and places) below something of `annotation`;
    several where a union has several, none where nothing is known."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return annotations_at(inner[0], loc)
    if not loc:
        return [annotation]
    if origin in (Union, types.UnionType):
        found = [one for member in inner for one in annotations_at(member, loc)]
        if not found:  # pydantic puts the name of the union's member into the path
            tagged = [member for member in inner if getattr(member, "__name__", None) == loc[0]]
            found = [one for member in tagged for one in annotations_at(member, loc[1:])]
        return found
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(loc[0]))
        return annotations_at(field.annotation, loc[1:]) if field else []
    if not inner:
        return []
    if origin is tuple and isinstance(loc[0], int) and inner[-1] is not Ellipsis:
        return annotations_at(inner[loc[0]], loc[1:]) if loc[0] < len(inner) else []
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return annotations_at(inner[1], loc[1:])
    return annotations_at(inner[0], loc[1:])


#: How pydantic names a union's member, or a key, in the path of an error.
_TAG = re.compile(
    r"(function|constrained|lax-or)-.*|(literal|list|dict|tuple|nullable)\[.*|\[key\]"
)


def written(annotation: Any, loc: Sequence[int | str]) -> list[int | str]:
    """The parts of `loc` that a person wrote: without the names of members of unions."""
    found: list[int | str] = []
    for place, part in enumerate(loc):
        unions = [members(one) for one in annotations_at(annotation, loc[:place])]
        tags = {getattr(one, "__name__", None) for many in unions if len(many) > 1 for one in many}
        if not (isinstance(part, str) and (part in tags or _TAG.fullmatch(part))):
            found.append(part)
    return found


def models_at(annotation: Any, loc: Sequence[int | str]) -> list[type[BaseModel]]:
    """The models among `annotations_at`, the members of a union each by itself."""
    return [
        member
        for found in annotations_at(annotation, loc)
        for member in members(found)
        if isinstance(member, type) and issubclass(member, BaseModel)
    ]


def members(annotation: Any) -> list[Any]:
    """The members of a union, of whatever depth; else the annotation itself."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return members(inner[0])
    if origin in (Union, types.UnionType):
        return [one for member in inner for one in members(member)]
    return [annotation]


def takes_none(annotation: Any) -> bool:
    """Whether null may stand there."""
    return type(None) in members(annotation)
