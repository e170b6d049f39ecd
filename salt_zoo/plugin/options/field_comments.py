"""The `#:` comments above the fields of a pydantic model, read from its source."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from collections.abc import Mapping

from pydantic import BaseModel

_MARK = "#:"


def field_comments(model: type[BaseModel]) -> dict[str, str]:
    """The comment of every field that has one, as one line of text.

    Inherited fields are included; a field that is declared again without a comment keeps that of
    its base class. A class without readable source contributes nothing.
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _own_comments(base)
    return found


def _own_comments(model: type[BaseModel]) -> dict[str, str]:
    """Those of the fields that the class itself declares."""
    try:
        source = inspect.getsource(model)
        if source[:1].isspace():  # a class inside a function or another class
            source = f"if True:\n{source}"
        definition = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef))
        above, beside = _comments(source)
    # no file, a class made by a function, a file that has changed since it was imported
    except (OSError, TypeError, ValueError, SyntaxError, StopIteration, tokenize.TokenError):
        return {}
    found = {}
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = beside.get(node.end_lineno or node.lineno) or _block(above, node.lineno)
            if text:
                found[node.target.id] = text
    return found


def _comments(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """The marked comments by line: those that have the line to themselves, and the others."""
    above: dict[int, str] = {}
    beside: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.string.startswith(_MARK):
            alone = token.line[: token.start[1]].isspace()
            text = token.string.removeprefix(_MARK).strip()
            (above if alone else beside)[token.start[0]] = text
    return above, beside


def _block(above: Mapping[int, str], line: int) -> str:
    """The comment whose last line is directly above `line`."""
    lines: list[str] = []
    while (line := line - 1) in above:
        lines.insert(0, above[line])
    return " ".join(filter(None, lines))
