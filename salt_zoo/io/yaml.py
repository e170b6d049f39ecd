"""YAML as it is written: what the usual readers guess, lose or unfold is refused with its line.

The words of YAML 1.2's core: `true` and `false` are booleans, `yes`, `no`, `on` and `off` are text;
`0100`, `0o17`, `1_000` and `1:30` are text and no numbers, dates are text, `1e-4` is a number. A
key is always the text that was written. Anchors, aliases and merge keys (`<<`) work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.core.base.number_words import is_number, number_in
from salt_zoo.io.files.regular import check_regular

#: A configuration is read by people; what is larger is another file. In bytes.
LARGEST = 1_000_000
#: Groups within groups.
DEEPEST = 50
#: Values of a whole file, with every alias written out.
MOST_VALUES = 100_000
#: Of a plain number.
MOST_DIGITS = 400

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOLEAN = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises:
        ZooError: it cannot be read, or is not what was meant; the line names the file and, where
            there is one, the line.
    """
    content = parse_yaml(_read(Path(path)), str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ZooError(
            f"{path}: should be a group of keys, not {shown(content)}; write KEY: VALUE lines"
        )
    return content


def dump_yaml(content: Any, **options: Any) -> str:
    """`content` as YAML that any reader takes for the same, with letters of any language as they
    are; `options` are those of `yaml.safe_dump`."""
    text: str = yaml.safe_dump(content, allow_unicode=True, **options)
    if any(letter in text for letter in "\x85\u2028\u2029"):
        # PyYAML breaks lines at these, and reads the break as a blank
        text = yaml.safe_dump(content, **options)
    return text


def _read(path: Path) -> str:
    try:
        kind = check_regular(path, "give a YAML file")
        if kind.st_size > LARGEST:
            raise ZooError(
                f"{path}: has {kind.st_size:,} bytes; a configuration has at most {LARGEST:,}"
            )
        return path.read_text(encoding="utf-8").removeprefix("\ufeff")
    except FileNotFoundError:
        raise ZooError(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise ZooError(
            f"{path}: cannot be read (byte {error.start} is not UTF-8); save it as UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise ZooError(f"{path}: cannot be read ({why or _one_line(error)})") from None


def parse_yaml(text: str, where: str) -> Any:
    """One YAML document as dictionaries, lists, text, numbers, booleans and None.

    Raises:
        ZooError: it is no YAML, or has a key twice, a value that contains itself, a key that is no
            single word, or more or deeper values than any configuration.
    """
    try:
        return _Builder(where).build(text)
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        last = text.count("\n", 0, -1) + 1  # libyaml is a line further where the file ends
        line = f", line {min(mark.line + 1, last)}" if mark else ""
        problem = getattr(error, "problem", None) or _one_line(error)
        raise ZooError(f"{where}{line}: not valid YAML ({problem})") from None


def plain_value(text: str) -> Any:
    """An unquoted word of YAML: None, a boolean, a number, or the text itself.

    Raises:
        ValueError: a number with more digits than any that is meant.
    """
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if is_number(text):
        if len(text) > MOST_DIGITS:
            raise ValueError(f"a number of {len(text)} digits")
        return number_in(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


@dataclass
class _Value:
    """A value, how many it stands for, and the text where it is a single word."""

    content: Any
    size: int
    written: str | None = None


@dataclass
class _Group:
    """A mapping or list whose end is still to come."""

    line: int
    anchor: str | None
    content: Any
    size: int = 1
    key: str | None = None
    merged: list[dict[str, Any]] = field(default_factory=list)
    is_merge: bool = False

    @property
    def wants_key(self) -> bool:
        return isinstance(self.content, dict) and self.key is None


class _Builder:
    """Values from the parser's events: without recursion, and each alias one object."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.open: list[_Group] = []
        self.anchors: dict[str, _Value] = {}
        self.root: Any = None

    def build(self, text: str) -> Any:
        documents = 0
        for event in _events(text):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.error(line, "a second document ('---') begins; write one")
            elif isinstance(event, yaml.AliasEvent):
                self.add(self.known(event.anchor, line), line, None, plain=True)
            elif isinstance(event, yaml.ScalarEvent):
                value = self.scalar(event, line)
                self.add(value, line, event.anchor, plain=event.implicit[0])
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self.begin(event, line)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self.end()
        return self.root

    def error(self, line: int, what: str) -> ZooError:
        return ZooError(f"{self.where}, line {line}: {what}")

    def check_tag(self, tag: str | None, line: int, *known: str) -> None:
        """Tags make something else of a value than what is written."""
        if tag not in (None, "!", *(f"tag:yaml.org,2002:{name}" for name in known)):
            raise self.error(line, f"not valid YAML here (the tag {shown(tag)}); leave it out")

    def known(self, anchor: str, line: int) -> _Value:
        if any(group.anchor == anchor for group in self.open):
            raise self.error(line, f"*{shown(anchor)} contains itself")
        if anchor not in self.anchors:
            raise self.error(line, f"there is no &{shown(anchor)} before *{shown(anchor)}")
        return self.anchors[anchor]

    def scalar(self, event: yaml.ScalarEvent, line: int) -> _Value:
        text: str = event.value
        if "\0" in text:  # written "\\0"; of a path the system says what no person understands
            raise self.error(line, "a zero character in a text; leave it out")
        size = 1 + len(text) // 100
        self.check_tag(event.tag, line, "str")
        if not event.implicit[0]:
            return _Value(text, size, text)
        if self.open and self.open[-1].wants_key:
            return _Value(text, size, text)
        try:
            return _Value(plain_value(text), size, text)
        except ValueError as error:
            raise self.error(line, str(error)) from None

    def begin(self, event: Any, line: int) -> None:
        if self.open and self.open[-1].wants_key:
            raise self.error(line, "a key must be a single word, not a group or list")
        self.check_tag(event.tag, line, "map", "seq")
        if len(self.open) >= DEEPEST:
            raise self.error(line, f"groups more than {DEEPEST} deep")
        content: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self.open.append(_Group(line, event.anchor, content))

    def end(self) -> None:
        group = self.open.pop()
        content = group.content
        if group.merged:
            content = {}
            for merged in reversed(group.merged):  # the first wins, and own keys over all
                content.update(merged)
            content.update(group.content)
        self.add(_Value(content, group.size), group.line, group.anchor, plain=False)

    def add(self, value: _Value, line: int, anchor: str | None, plain: bool) -> None:
        """A finished value, or a key, to the group that is open."""
        if anchor is not None:
            self.anchors[anchor] = value
        if not self.open:
            self.root = value.content
            return
        group = self.open[-1]
        group.size += value.size
        if group.size > MOST_VALUES:
            raise self.error(line, f"more than {MOST_VALUES:,} values, with aliases written out")
        if isinstance(group.content, list):
            group.content.append(value.content)
        elif group.key is None:
            self.add_key(group, value, line, plain)
        elif group.is_merge:
            self.merge(group, value.content, line)
        else:
            group.content[group.key] = value.content
            group.key = None

    def add_key(self, group: _Group, value: _Value, line: int, plain: bool) -> None:
        if value.written is None:
            raise self.error(line, "a key must be a single word, not a group or list")
        group.key, group.is_merge = value.written, plain and value.written == "<<"
        if group.key in group.content:
            raise self.error(line, f"the key {shown(group.key)} is listed twice")
        if group.is_merge and group.merged:
            raise self.error(line, "a second '<<'; write one, as in <<: [*a, *b]")

    def merge(self, group: _Group, content: Any, line: int) -> None:
        found = content if isinstance(content, list) else [content]
        if not found or not all(isinstance(one, dict) for one in found):
            raise self.error(line, "'<<' takes a group of keys, or a list of such groups")
        group.merged, group.key, group.is_merge = found, None, False


def _events(text: str) -> Iterator[Any]:
    # libyaml's parser is ten times as fast; not every installation has it
    return iter(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
