"""Typed configuration: pydantic models, YAML files, `--set a.b=c`, and errors for people."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from salt_zoo.errors import ZooError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


class StrictModel(BaseModel):
    """Base of every configuration: unknown keys are errors, values cannot change later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping; a ZooError names the file (and line) where it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ZooError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path}: cannot be read ({_one_line(error)})") from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or _one_line(error)
        raise ZooError(f"{path}{line}: not valid YAML ({problem})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ZooError(f"{path}: must hold keys and values, not a {type(content).__name__}")
    return content


def apply_overrides(content: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`content` with every `a.b=value` of `overrides` set; values are read as YAML.

    A number in the path indexes a list: `arms.0.method.name=dmd`.
    """
    result = _copy(content)
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not all(key.strip() for key in path.split(".")):
            raise ZooError(f"--set {text!r}: write KEY=VALUE, for instance training.updates=100")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ZooError(f"--set {text!r}: the value is not valid YAML") from None
        place: Any = result
        keys = path.strip().split(".")
        for depth, key in enumerate(keys):
            last = depth == len(keys) - 1
            if isinstance(place, list):
                if not key.isdecimal() or int(key) >= len(place):
                    raise ZooError(
                        f"--set {text!r}: {'.'.join(keys[:depth])} is a list of {len(place)}, "
                        f"so {key!r} must be a number from 0 that is below {len(place)}"
                    )
                key = int(key)  # type: ignore[assignment]
            elif not isinstance(place, dict):
                raise ZooError(
                    f"--set {text!r}: {'.'.join(keys[:depth])} is {place!r}, not a group of keys"
                )
            elif not last and place.get(key) is None:
                place[key] = {}
            if last:
                place[key] = parsed
            else:
                place = place[key]
    return result


def _copy(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _copy(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_copy(value) for value in content]
    return content


def validate(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """`content` as a `model`; a ZooError names the first wrong key and what would be right."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ZooError(_explain(model, error, where)) from None


def _explain(model: type[BaseModel], error: ValidationError, where: str) -> str:
    found = error.errors(include_url=False)
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    path = ".".join(str(part) for part in first["loc"])
    at = f"{where}: {path}" if path else where
    if first["type"] == "extra_forbidden":
        key = first["loc"][-1]
        # each member of a union complains by itself; any of them may be meant
        same = [e for e in found if e["type"] == "extra_forbidden" and e["loc"][-1] == key]
        owners = [owner for e in same for owner in _models_at(model, e["loc"][:-1])]
        known = [name for owner in owners for name in owner.model_fields]
        return f"{at}: unknown key; {did_you_mean(str(key), known)}"
    if first["type"] == "missing":
        return f"{at}: this key is required"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = repr(first.get("input"))
    given = given if len(given) <= 60 else given[:57] + "..."
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    told = "" if given in message else f", not {given}"
    if first["type"] == "literal_error":  # all that may stand there is listed; the nearest is named
        hint = did_you_mean(str(first["input"]), re.findall("'([^']*)'", first["ctx"]["expected"]))
        told += f"; {hint}" if hint.startswith("did") else ""
    return f"{at}: {message}{told}{more}"


def _models_at(annotation: Any, loc: Sequence[int | str]) -> list[type[BaseModel]]:
    """The models that may stand where a validation error's location leads to in `annotation`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _models_at(inner[0], loc)
    if origin in (Union, types.UnionType):
        found = [model for member in inner for model in _models_at(member, loc)]
        if not found and loc:  # pydantic puts the name of the union's member into the path
            tagged = [member for member in inner if getattr(member, "__name__", None) == loc[0]]
            found = [model for member in tagged for model in _models_at(member, loc[1:])]
        return found
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            return [annotation]
        field = annotation.model_fields.get(str(loc[0]))
        return _models_at(field.annotation, loc[1:]) if field else []
    if not loc or not inner:
        return []
    if origin is tuple and isinstance(loc[0], int) and inner[-1] is not Ellipsis:
        return _models_at(inner[loc[0]], loc[1:]) if loc[0] < len(inner) else []
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _models_at(inner[1], loc[1:])
    return _models_at(inner[0], loc[1:])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
