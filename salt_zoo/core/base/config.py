"""Typed configuration: strict pydantic models, and errors for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError

from salt_zoo.core.base.annotations import annotations_at, models_at, takes_none, written
from salt_zoo.core.base.errors import ZooError, did_you_mean, shown
from salt_zoo.core.base.strict_numbers import strict_numbers

Model = TypeVar("Model", bound=BaseModel)

#: A number of steps of a rollout; more than any sampler takes was never meant.
Steps = Annotated[int, Field(ge=1, le=10_000)]


#: The type of a `said` error.
_TOLD = "told"


def said(text: str) -> PydanticCustomError:
    """For a validator to raise: `text` says by itself what was given, so that a long list need not
    be shown once more."""
    return PydanticCustomError(_TOLD, "{text}", {"text": text})


def once(values: list[Any]) -> list[Any]:
    """A list in which nothing stands twice: a typo would otherwise be done and counted twice."""
    seen = set()
    for value in values:
        if value in seen:
            raise said(f"{value!r} is listed twice")
        seen.add(value)
    return values


class StrictModel(BaseModel):
    """Base of every configuration: unknown keys are errors, values cannot change later, numbers
    are finite and no booleans."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema: CoreSchema = strict_numbers(handler(source))
        return schema


@runtime_checkable
class Composite(Protocol):
    """A class of parts whose options name other parts, such as a method with its objectives."""

    def complete(self, config: Any, zoo: Any, where: str) -> Any:
        """`config` with the options of those parts checked and every default filled in.

        Raises:
            ZooError: an unknown name or a wrong option; the line begins with `where`.
        """
        ...


def validate(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """`content` as a `model`; a ZooError names the first wrong key and what would be right.

    `where` is the file, or for a part of its content `FILE: key`.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ZooError(_explain(model, error, where)) from None


#: Words that people write for "no such thing", which is null.
_OFF = (False, "off", "no", "none", "None", "false", "")


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> str:
    found = error.errors(include_url=False)
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path = ".".join(_part(part) for part in written(model, first["loc"]))
    # the options of a part are validated by themselves: `where` then ends in the part's key
    at = f"{where}{'.' if ': ' in where else ': '}{path}" if path else where
    if first["type"] == "extra_forbidden":
        key = first["loc"][-1]
        # each member of a union complains by itself; any of them may be meant
        same = [e for e in found if e["type"] == "extra_forbidden" and e["loc"][-1] == key]
        owners = [owner for e in same for owner in models_at(model, e["loc"][:-1])]
        known = [name for owner in owners for name in owner.model_fields]
        return f"{at}: unknown key; {did_you_mean(str(key), known)}"
    if first["type"] == "missing":
        return f"{at}: this key is required"
    given = first.get("input")
    message, hint = _message(first), _hint(model, first["loc"], given, first)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    told = "" if first["type"] == _TOLD or shown(given) in message else f", not {shown(given)}"
    return f"{at}: {message}{told}{hint}{more}"


def _message(error: Mapping[str, Any]) -> str:
    """pydantic's words, without Python's."""
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "should be a group of keys"
    if error["type"] in ("too_short", "too_long"):
        least = error["type"] == "too_short"
        count = error["ctx"]["min_length" if least else "max_length"]
        return f"should have at {'least' if least else 'most'} {count} item{'s' * (count != 1)}"
    return re.sub("^(Value error,|Input|String|List|Dictionary) ", "", error["msg"])


def _hint(model: type[BaseModel], loc: Sequence[int | str], given: Any, error: Any) -> str:
    """What would be right, where the message does not say it."""
    if error["type"] == "literal_error":  # all that may stand there is listed; the nearest is named
        hint = did_you_mean(str(given), re.findall("'([^']*)'", error["ctx"]["expected"]))
        return f"; {hint}" if hint.startswith("did") else ""
    if error["type"] == "string_type" and isinstance(given, bool | int | float):
        return "; text that looks like a number or a boolean is written in quotes"
    if given in _OFF and any(map(takes_none, annotations_at(model, loc))):
        return "; to switch it off, write null"
    if error["type"] == "list_type" and (given is None or isinstance(given, str)):
        return "; a list is written [a, b], and [] where it is to be empty"
    if given is None and error["type"] in ("model_type", "dict_type"):
        omit = "omit it for its defaults, or " if _has_default(model, loc) else ""
        return f"; {omit}write its keys"
    return ""


def _has_default(model: type[BaseModel], loc: Sequence[int | str]) -> bool:
    """Whether a key may be left out."""
    if not loc:  # the content itself, which is no group
        return False
    fields = [owner.model_fields.get(str(loc[-1])) for owner in models_at(model, loc[:-1])]
    return any(field is not None and not field.is_required() for field in fields)


def _part(part: int | str) -> str:
    """A key in a path; one that would tear the line is quoted."""
    text = str(part)
    return text if text.isprintable() and 0 < len(text) <= 60 else shown(text)
