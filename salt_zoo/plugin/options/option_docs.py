"""The options of a registered part, each with its type, range, default and documentation."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from salt_zoo.core.base.annotations import members
from salt_zoo.plugin.options.field_comments import field_comments
from salt_zoo.plugin.options.type_words import limits, words

#: In a key, any name of a group's entry, and any index of a list.
ANY_NAME, ANY_INDEX = "NAME", "N"


@dataclass(frozen=True)
class OptionDoc:
    """One option as a person sets it.

    Attributes:
        key: dotted, as `--set` takes it; `NAME` and `N` stand for any name and any index.
        type: in plain words.
        range: of its values, in words; empty where there is no limit.
        default: as YAML writes it. Of a group whose own keys follow: `{}`, or None where the group
            is off by default.
        required: there is no default.
        is_group: its own keys follow.
        text: its documentation; empty where there is none.
    """

    key: str
    type: str
    range: str
    default: Any
    required: bool
    is_group: bool
    text: str


def option_docs(
    model: type[BaseModel], defaults: Mapping[str, Any] | None = None
) -> list[OptionDoc]:
    """Every option of `model`, the keys of nested models after the group that holds them.

    Args:
        defaults: those that take the place of the model's own, as a registration may have them.
    """
    return list(_walk(model, defaults or {}, "", ()))


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())


def _walk(
    model: type[BaseModel], given: Mapping[str, Any], prefix: str, above: tuple[type, ...]
) -> Iterator[OptionDoc]:
    """`given`: values that take the place of the model's defaults; `above`: the models round it."""
    comments = field_comments(model)
    for name, field in model.model_fields.items():
        key = key_of(name, field)
        default = given[key] if key in given else _default(field)
        required = default is PydanticUndefined
        inner = [one for one in _models(field.annotation) if one[1] not in (*above, model)]
        is_group = any(not suffix for suffix, _ in inner)
        text = comments.get(name) or " ".join((field.description or "").split())
        yield OptionDoc(
            key=prefix + key,
            type=words(field.annotation),
            range=limits(field.annotation, field.metadata),
            default=_shown(default, is_group),
            required=required,
            is_group=is_group,
            text=text or (first_paragraph(inner[0][1].__doc__) if inner else ""),
        )
        seen: set[str] = set()
        for suffix, group in inner:
            values = {} if suffix else _values(group, default)
            for doc in _walk(group, values, f"{prefix}{key}{suffix}.", (*above, model)):
                if doc.key not in seen:  # the members of a union may share keys
                    seen.add(doc.key)
                    yield doc


def key_of(name: str, field: FieldInfo) -> str:
    """The key that a person writes for a field."""
    alias = field.validation_alias
    return alias if isinstance(alias, str) else name


def _default(field: FieldInfo) -> Any:
    """The default; the text "computed" where a factory makes it from the other options."""
    try:
        return field.get_default(call_default_factory=True)
    except Exception:  # the factory is a plugin's, or wants to be given the options
        return "computed"


def _shown(default: Any, is_group: bool) -> Any:
    if default is None or default is PydanticUndefined:
        return None
    return {} if is_group else plain(default)


def _values(group: type[BaseModel], default: Any) -> dict[str, Any]:
    """What a default says about the keys of its group."""
    if isinstance(default, Mapping):
        return dict(default)
    if not isinstance(default, group):
        return {}
    return {key_of(n, f): v for n, v in default if (f := group.model_fields.get(n)) is not None}


def _models(annotation: Any, suffix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The models that an annotation holds, each with the part of the key that leads to it."""
    for member in members(annotation):
        origin, inner = typing.get_origin(member), typing.get_args(member)
        if isinstance(member, type) and issubclass(member, BaseModel):
            yield suffix, member
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            yield from _models(inner[1], f"{suffix}.{ANY_NAME}")
        elif isinstance(origin, type) and issubclass(origin, Collection):
            for one in dict.fromkeys(part for part in inner if part is not Ellipsis):
                yield from _models(one, f"{suffix}.{ANY_INDEX}")


def plain(value: Any) -> Any:
    """A default as mappings, lists and scalars, such as YAML and JSON can hold."""
    if isinstance(value, BaseModel):
        return {name: plain(one) for name, one in value}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):  # subclasses, such as numpy's, are made plain
        if isinstance(value, kind) and math.isfinite(value):
            return kind(value)
    return str(value)
