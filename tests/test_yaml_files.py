"""YAML is read as it is written, or refused with its line."""

from __future__ import annotations

import os
import re
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from salt_zoo.core.base.config import StrictModel, validate
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.yaml import LARGEST, dump_yaml, parse_yaml, read_yaml


class Options(StrictModel):
    count: int = 0
    rate: float = 0.0
    text: str = ""
    flag: bool = False
    by_steps: dict[int, float] = {}
    several: list[int] = []


def read(text: str) -> Options:
    return validate(Options, parse_yaml(text, "o.yaml"), "o.yaml")


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("count: 100", "count", 100),
        ("count: 1e1", "count", 10),
        ("count: 0x1f", "count", 31),
        ("count: -3", "count", -3),
        ("rate: 1e-4", "rate", 1e-4),
        ("rate: .5", "rate", 0.5),
        ("rate: 3", "rate", 3.0),
        ("text: 1:30", "text", "1:30"),
        ("text: 0100", "text", "0100"),
        ("text: 1_000", "text", "1_000"),
        ("text: 0o17", "text", "0o17"),
        ("text: 2026-11-25", "text", "2026-11-25"),
        ("text: yes", "text", "yes"),
        ("text: off", "text", "off"),
        ("text: '3'", "text", "3"),
        ("text: !!str 010", "text", "010"),
        ("flag: on", "flag", True),
        ("flag: no", "flag", False),
        ("flag: true", "flag", True),
        ("by_steps: {8: 0.4, 2: 1}", "by_steps", {8: 0.4, 2: 1.0}),
    ],
)
def test_values_are_what_was_written(text, field, value):
    found = getattr(read(text), field)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "count: 0100", "count: 1:30", "count: yes", "count: true", "count: off",
        "count: 2026-11-25",
        "count: '010'", "rate: 010", "rate: 00.5", "rate: no", "rate: true", "rate: 1:30.5",
        "count: .inf", "rate: .nan", "rate: inf", "rate: 1e999", "rate: 1e300",
        f"count: {10**30}", f"count: -{10**30}", "count: 1.5", "several: [1, true]",
        "several: [010]", "by_steps: {010: 1}", "by_steps: {on: 1}", "by_steps: {8: 1, +8: 2}",
        "count: 1_000", "count: 0x1_0", "count: 0o17", "count: 0b101", "rate: 1_0.5", "rate: 1e1_0",
        "count: ' 8'", "several: [1_0]", "by_steps: {1_0: 1}",
        "text: 3", "text: 0.30", "text: true", "flag: 3", "count: ", "several: 3",
    ],
)  # fmt: skip
def test_a_value_that_would_be_another_is_refused(text):
    with pytest.raises(ZooError) as raised:
        read(text)
    line = str(raised.value)
    assert line.startswith(f"o.yaml: {text.partition(':')[0]}") and "\n" not in line


# YAML 1.2.2's core schema, section 10.3.2, as it stands there
SPECIFIED = {
    "integer": re.compile(r"[-+]?[0-9]+"),
    "octal": re.compile(r"0o[0-7]+"),
    "hexadecimal": re.compile(r"0x[0-9a-fA-F]+"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"),
}
ALIKE = st.text("0123456789_+-.eEoxXbBaF٣", min_size=1, max_size=8)


@given(ALIKE | st.from_regex(SPECIFIED["float"], fullmatch=True), st.sampled_from(["", "'"]))
@example("1_000", "")
@example("1_000", "'")
@example("0x1_0", "")
@example("0b101", "")
@example("1e1_0", "")
def test_what_is_taken_for_a_number_is_one_by_the_specification(word, quote):
    kinds = {kind for kind, form in SPECIFIED.items() if form.fullmatch(word)}
    for key in ("count", "rate"):
        try:
            found = getattr(read(f"{key}: {quote}{word}{quote}"), key)
        except ZooError as error:
            assert re.match(rf"o.yaml(: {key}|, line 1): ", str(error)) and "\n" not in str(error)
            continue
        assert kinds & {"integer", "hexadecimal", "float"}
        assert not re.match("[-+]?0[0-9]", word)
        assert found == (int(word, 16) if "hexadecimal" in kinds else float(word))


@given(ALIKE)
@example("1_000")
def test_what_is_taken_for_a_key_of_numbers_is_one_by_the_specification(word):
    try:
        (found,) = read(f"by_steps: {{'{word}': 1}}").by_steps
    except ZooError:
        return
    assert SPECIFIED["float"].fullmatch(word) and found == float(word)
    assert not re.match("[-+]?0[0-9]", word)


@given(st.integers(-(10**15), 10**15), st.floats(-1e38, 1e38))
def test_every_number_is_taken(whole, fraction):
    assert read(f"count: {whole}").count == read(f"rate: {whole}").rate == whole
    assert read(f"rate: {fraction!r}").rate == fraction
    assert read(f"count: {abs(whole):#x}").count == abs(whole)


WORDS = ["on", "off", "yes", "No", "y", "null", "~", "true", "010", "8", "0.30", "1e3", "1:30"]
WORDS += ["2026-11-25", "2026-11-25 10:00:00", "=", ".inf", "0x10", "1_000", "-", ".5", "w0.3"]


#: A zero character is refused.
LETTERS = st.characters(exclude_characters="\0", exclude_categories=("Cs",))


@pytest.mark.parametrize("word", [word for word in WORDS if word != "-"])
def test_a_key_is_the_word_that_was_written(word):
    assert parse_yaml(f"{word}: {{a: 1}}", "k") == {word: {"a": 1}}
    assert parse_yaml(f"x: {{{word}: 1}}", "k") == {"x": {word: 1}}


@given(
    st.dictionaries(
        st.sampled_from(WORDS) | st.text(LETTERS, max_size=8), st.integers(), max_size=6
    )
)
def test_quoted_or_not_every_key_comes_back(content):
    text = dump_yaml(content)
    assert parse_yaml(text, "k") == content


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(LETTERS, max_size=20)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(st.text(LETTERS, max_size=5), inner, max_size=4),
        max_leaves=20,
    ),
    st.booleans(),
)  # fmt: skip
@example({"a\x85b": "\x85", "c": ["\u2028 x", "ünï"]}, False)
def test_what_was_dumped_is_read(content, flow):
    text = dump_yaml(content, default_flow_style=flow)
    assert parse_yaml(text, "d") == content == yaml.safe_load(text)


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=5), st.booleans())
def test_a_key_twice_is_refused_with_its_line(keys, quoted):
    assume(len(set(keys)) < len(keys))
    text = "\n".join(f"'{k}': {n}" if quoted and n else f"{k}: {n}" for n, k in enumerate(keys))
    second = next(n for n, key in enumerate(keys) if key in keys[:n])
    with pytest.raises(ZooError, match=rf"^f, line {second + 1}: the key .* is listed twice$"):
        parse_yaml(text, "f")


@given(st.text(string.printable, max_size=60))
def test_any_text_is_read_or_is_one_line(text):
    try:
        parse_yaml(text, "f")
    except ZooError as error:
        assert "\n" not in str(error) and str(error).startswith("f")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("m: &a {b: *a}", "line 1: *'a' contains itself"),
        ("m: 1\nl: &a [1, [*a]]", "line 2: *'a' contains itself"),
        ("m: *a", "line 1: there is no &'a'"),
        ("a: " + "[" * 5000 + "]" * 5000, "more than 50 deep"),
        ("{a: " * 3000 + "1" + "}" * 3000, "more than 50 deep"),
        ("".join(" " * depth + "a:\n" for depth in range(300)), "more than 50 deep"),
        (BOMB, "more than 100,000 values"),
        ("t: &t " + "x" * 5000 + "\nl: [" + "*t," * 30_000 + "]", "more than 100,000 values"),
        ("? [a, b]\n: 4", "line 1: a key must be a single word"),
        ("a: 1\n{b: 1}: 2", "line 2: a key must be a single word"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("a: 1\nb: !x 2", "line 2: not valid YAML here (the tag '!x')"),
        ("a: !!python/object/apply:os.system ['x']", "line 1: not valid YAML"),
        ("a: !!binary aGk=", "line 1: not valid YAML"),
        ("<<: 3", "line 1: '<<' takes a group of keys"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x", "line 4: a second '<<'"),
        ("a: " + "9" * 5000, "line 1: a number of 5000 digits"),
        ("a: [1, 2", "line 1: not valid YAML"),
        ("a: 1\n\tb: 2", "line 2: not valid YAML"),
        ('a: 1\nb: "x\\0y"', "line 2: a zero character"),
        ('"x\\0": 1', "line 1: a zero character"),
    ],
)
def test_what_no_configuration_is(text, said):
    with pytest.raises(ZooError) as raised:
        parse_yaml(text, "f.yaml")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_merge_keys_work_as_ever():
    text = """
    x: &x {a: 1, b: 2}
    y: {<<: *x, b: 3}
    z:
      b: 5
      <<: [*x, {c: 1, a: 7}]
    q: {'<<': 4}
    """
    found = parse_yaml(text, "m")
    assert found["y"] == {"a": 1, "b": 3}
    assert found["z"] == {"a": 1, "b": 5, "c": 1}
    assert found["q"] == {"<<": 4}


@pytest.mark.parametrize(
    "path", sorted(Path("benchmarks/studies").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_studies_read_as_by_any_reader(path):
    def words(value):
        if isinstance(value, dict):
            return {str(key): words(one) for key, one in value.items()}
        return [words(one) for one in value] if isinstance(value, list) else value

    assert read_yaml(path) == words(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_what_is_no_small_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "large.yaml").write_text("x: " + "a" * LARGEST)
    for name, said in {
        "fifo": "no regular file", "zero": "no regular file", "loop": "cannot be read",
        "large": "has 1,000,003 bytes",
    }.items():  # fmt: skip
        with pytest.raises(ZooError, match=said) as raised:
            read_yaml(tmp_path / f"{name}.yaml")
        assert "\n" not in str(raised.value)
    with pytest.raises(ZooError, match="it is a folder"):
        read_yaml(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfmethod: dmd\r\nseed: 3\r\n")
    assert read_yaml(path) == {"method": "dmd", "seed": 3}
