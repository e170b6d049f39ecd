"""Typed configuration: pydantic models, YAML files, `--set a.b=c`, and errors for people."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

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
        if not equals or not path.strip():
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
                if not key.isdigit() or int(key) >= len(place):
                    raise ZooError(
                        f"--set {text!r}: {'.'.join(keys[:depth])} is a list of {len(place)}, "
                        f"so {key!r} must be a number from 0 to {len(place) - 1}"
                    )
                key = int(key)  # type: ignore[assignment]
            elif not isinstance(place, dict):
                raise ZooError(f"--set {text!r}: {'.'.join(keys[:depth])} is not a group of keys")
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
        owner = _model_at(model, first["loc"][:-1])
        known = owner.model_fields if owner else ()
        return f"{at}: unknown key; {did_you_mean(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"{at}: this key is required"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = repr(first.get("input"))
    given = given if len(given) <= 60 else given[:57] + "..."
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{at}: {message}, not {given}{more}" if given not in message else f"{at}: {message}{more}"


def _model_at(model: type[BaseModel], loc: Iterable[int | str]) -> type[BaseModel] | None:
    """The nested model that a validation error's location leads to."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            if field is None:
                continue  # the tag of a union
            current = _models_in(field.annotation)
        # a list index or a dictionary key keeps the model of its items
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _models_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (list, dict, tuple, typing.Union, types.UnionType):
        for inner in typing.get_args(annotation):
            if found := _models_in(inner):
                return found
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
