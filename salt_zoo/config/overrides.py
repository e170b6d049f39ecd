"""`--set KEY=VALUE`: one key of a configuration, changed on the command line.

`KEY` is a path of keys with dots between them. It may go below what is written in its short form
(`method: dmd` is `{name: dmd}`, `steps: 4` is `{4: 1.0}`), and a number indexes a list. A key that
has dots itself is found where there is such a key, and can be quoted: `arms."w0.3".method`.

`VALUE` is a word as in a file, or a list, group or quoted text in YAML's flow style. What is none
of these is text as it is, also with `#` or `: ` in it; and so is what a field of text is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.io.yaml import parse_yaml, plain_value

#: What may stand at a path of a configuration: the types of its field; none where that is unknown.
Types = Callable[[Mapping[str, Any], Sequence[int | str]], Sequence[Any]]

_PART = re.compile(r"""\s*("[^"]*"|'[^']*'|[^."'=]*[^."'=\s])\s*""")
_DEEPEST = 50


def apply_overrides(
    content: Mapping[str, Any], overrides: Iterable[str], types: Types | None = None
) -> dict[str, Any]:
    """A copy of `content` with every `KEY=VALUE` of `overrides` set, in their order.

    Raises:
        ZooError: no `KEY=VALUE`, or a key below something that has none.
    """
    result = _copy(content)
    for text in overrides:
        told = f"--set {shown(text)}"
        parts, value = _split(text, told)
        place: Any = result
        path: list[int | str] = []
        while parts:
            key, parts = _next(place, parts, path, told)
            if parts:
                place = _below(place, key, parts[0][0], _name([*path, key]), told)
            path.append(key)
        known = types(result, path) if types else ()
        place[key] = _value(value, known, told)
    return result


def _split(text: str, told: str) -> tuple[list[tuple[str, bool]], str]:
    """The parts of the path, each with whether it was quoted, and the text of the value."""
    parts: list[tuple[str, bool]] = []
    at = 0
    while len(parts) < _DEEPEST and (found := _PART.match(text, at)):
        part, at = found[1], found.end()
        quoted = part[0] in "\"'"
        parts.append((part[1:-1] if quoted else part, quoted))
        if text[at : at + 1] == "=":
            return parts, text[at + 1 :].strip()
        if text[at : at + 1] != ".":
            break
        at += 1
    raise ZooError(f"{told}: write KEY=VALUE, for instance training.updates=100")


def _next(
    place: Any, parts: Sequence[tuple[str, bool]], path: Sequence[int | str], told: str
) -> tuple[str | int, list[tuple[str, bool]]]:
    """The next key at `place`, and the parts that are left."""
    (first, quoted), rest = parts[0], list(parts[1:])
    if isinstance(place, list):
        if not (first.isascii() and first.isdecimal() and len(first) < 10) or (
            int(first) >= len(place)
        ):
            wanted = f"must be a number from 0 that is below {len(place)}"
            if not place:
                wanted = f"is not in it; write the whole list, as in {_name(path)}=[a, b]"
            raise ZooError(
                f"{told}: {_name(path)} is a list of {len(place)}, so {shown(first)} {wanted}"
            )
        return int(first), rest
    if not quoted:  # the longest key that is there; dots in keys are no new groups
        for count in range(len(parts), 1, -1):
            if any(is_quoted for _, is_quoted in parts[:count]):
                continue
            joined = ".".join(part for part, _ in parts[:count])
            if joined in place:
                return joined, list(parts[count:])
    return first, rest


def _below(place: Any, key: Any, wanted: str, name: str, told: str) -> Any:
    """The group or list at `key`, which grows from its short form."""
    found = place[key] if isinstance(place, list) else place.get(key)
    if found is None:
        found = {}
    elif isinstance(found, str):
        found = {"name": found}
    elif isinstance(found, int) and not isinstance(found, bool) and wanted.isdecimal():
        found = {str(found): 1.0}
    elif not isinstance(found, dict | list):
        raise ZooError(
            f"{told}: {name} is {shown(found)}, not a group of keys (a key with a dot is written "
            "in quotes, as in arms.'w0.3'.seeds)"
        )
    place[key] = found
    return found


def _name(path: Sequence[int | str]) -> str:
    return ".".join(map(str, path))


def _value(text: str, types: Sequence[Any], told: str) -> Any:
    """`text` as its field takes it: as YAML where that fits, and otherwise as it is."""
    try:
        value = parse_yaml(text, told) if text[:1] in "[{\"'" and text else plain_value(text)
    except (ZooError, ValueError) as error:
        if _fits(text, types):
            return text
        if isinstance(error, ZooError):
            raise ZooError(
                f"{told}: the value is not valid YAML; text is written in quotes"
            ) from None
        raise ZooError(f"{told}: {error}") from None
    return text if not _fits(value, types) and _fits(text, types) else value


def _fits(value: Any, types: Sequence[Any]) -> bool:
    """Whether a field of one of these types takes the value; an unknown field says nothing."""
    for one in types:
        try:
            TypeAdapter(one, config=_config(one)).validate_python(value)
        except ValidationError:
            continue
        return True
    return False


def _config(one: Any) -> ConfigDict | None:
    # a model brings its own
    return None if hasattr(one, "model_config") else ConfigDict(allow_inf_nan=False)


def _copy(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _copy(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_copy(value) for value in content]
    return content
