"""What no field of a configuration takes for a number, wherever it stands in a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import PydanticCustomError, core_schema

from salt_zoo.core.base.number_words import why_no_number

#: torch's integers; what is larger was never meant, and would fail in the midst of a run.
LARGEST_INTEGER = 2**63 - 1
#: Networks compute in float32.
LARGEST_FLOAT = 3.4e38
#: Of learning rates: an optimizer divides them by what may be small, and float32 has an end.
LARGEST_RATE = 1e30


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "should be a number")
    if isinstance(value, str) and (why := why_no_number(value)):
        raise PydanticCustomError("number_type", "{why}", {"why": why})
    return value


def _every_key(value: Any, validate: Callable[[Any], Any]) -> Any:
    found = validate(value)
    if isinstance(value, Mapping) and len(found) < len(value):
        raise PydanticCustomError("key_twice", "two of the keys are one number")
    return found


def strict_numbers(schema: Any) -> Any:
    """A model's schema whose numbers are no booleans, are written as in YAML, and have ends.

    Models within it are left alone: they have brought their own.
    """
    return _strict(schema, outermost=True)


def _strict(node: Any, outermost: bool = False) -> Any:
    if isinstance(node, list | tuple):
        return type(node)(_strict(one, outermost) for one in node)
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if kind in ("int", "float"):
        return core_schema.no_info_before_validator_function(_number, _bounded(node))
    if kind == "function-before" and node["function"].get("function") is _number:
        return node
    if kind == "function-wrap" and node["function"].get("function") is _every_key:
        return node
    if kind == "dict" and node.get("keys_schema", {}).get("type") in ("int", "float"):
        keys, values = _strict(node["keys_schema"]), _strict(node.get("values_schema"))
        inner: Any = {**node, "keys_schema": keys, "values_schema": values}
        return core_schema.no_info_wrap_validator_function(_every_key, inner)
    if kind == "model":
        return {**node, "schema": _strict(node["schema"])} if outermost else node
    return {
        key: value if key in ("default", "metadata", "serialization") else _strict(value, outermost)
        for key, value in node.items()
    }


def _bounded(node: Any) -> Any:
    largest = LARGEST_INTEGER if node["type"] == "int" else LARGEST_FLOAT
    ends: dict[str, Any] = {}
    if not {"le", "lt"} & node.keys():
        ends["le"] = largest
    if not {"ge", "gt"} & node.keys():
        ends["ge"] = -largest
    return {**node, **ends}
