"""`--set KEY=VALUE`: keys with dots, short forms, and values as their fields take them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.study.types import types_of_study
from salt_zoo.config.field_types import types_of_run
from salt_zoo.config.overrides import apply_overrides
from salt_zoo.core.base.annotations import annotations_at
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import load_zoo


class Fields(StrictModel):
    title: str = ""
    folder: Path = Path()
    either: str | None = None
    count: int | None = None
    rate: float = 1.0
    flag: bool = False
    mode: Literal["a", "b"] = "a"
    words: list[str] = []
    by_name: dict[str, str] = {}


def set_in(text: str):
    (value,) = apply_overrides({}, [text], lambda _, path: annotations_at(Fields, path)).values()
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("title=/runs/try #3/model.pt", "/runs/try #3/model.pt"),
        ("title=a: b", "a: b"),
        ("title=2026-11-25", "2026-11-25"),
        ("title=2026", "2026"),
        ("title=0.30", "0.30"),
        ("title=true", "true"),
        ("title=null", "null"),
        ("title=[draft] x.pt", "[draft] x.pt"),
        ("title={x}", "{x}"),
        ("title='quoted'", "quoted"),
        ("title=&a *b !c", "&a *b !c"),
        ("title=a=b", "a=b"),
        ("folder=12", "12"),
        ("either=null", None),
        ("either=12", "12"),
        ("count=12", 12),
        ("count=null", None),
        ("count=0100", "0100"),
        ("rate=1e-4", 1e-4),
        ("flag=on", "on"),
        ("mode=b", "b"),
        ("words=[a, 'b c']", ["a", "b c"]),
        ("unknown=3", 3),
        ("unknown=a: b #c", "a: b #c"),
    ],
)
def test_a_value_is_what_its_field_takes(text, value):
    found = set_in(text)
    assert found == value and type(found) is type(value)


@given(st.text(min_size=1).map(str.strip).filter(lambda t: t and t[0] not in "\"'"))
def test_text_is_taken_as_it_is(text):
    assert set_in(f"title={text}") == text


NAMES = st.text("abw.03 -", min_size=1, max_size=6).filter(
    lambda name: name.strip() == name and not set(".") & {name[0], name[-1]} and ".." not in name
)


@given(st.dictionaries(NAMES, st.just({"k": 0}), min_size=1, max_size=4), st.data(), st.booleans())
def test_every_key_that_is_there_can_be_reached(arms, data, quoted):
    """A key with dots by the longest that is there, or in quotes."""
    label = data.draw(st.sampled_from(sorted(arms)))
    written = f"'{label}'" if quoted else label
    found = apply_overrides({"arms": arms}, [f"arms.{written}.k=1"])
    assert found["arms"] == {**arms, label: {"k": 1}}


@pytest.mark.parametrize(
    ("content", "texts", "expected"),
    [
        ({"method": "dmd"}, ["method.lr=1"], {"method": {"name": "dmd", "lr": 1}}),
        (
            {"m": {"steps": 4}},
            ["m.steps.8=0.4", "m.steps.4=0.6"],
            {"m": {"steps": {"4": 0.6, "8": 0.4}}},
        ),
        ({"training": None}, ["training.updates=3"], {"training": {"updates": 3}}),
        ({"metrics": ["a", "b"]}, ["metrics.1.gap=2"], {"metrics": ["a", {"name": "b", "gap": 2}]}),
        ({}, ['arms."w0.3".seed=1'], {"arms": {"w0.3": {"seed": 1}}}),
        ({"w0": {"3": 1}, "w0.3": 2}, ["w0.3=5"], {"w0": {"3": 1}, "w0.3": 5}),
        ({"w0": {"3": 1}, "w0.3": 2}, ["'w0'.3=5"], {"w0": {"3": 5}, "w0.3": 2}),
        ({}, ["'a=b'=c"], {"a=b": "c"}),
        ({}, [" a . b = c "], {"a": {"b": "c"}}),
    ],
)
def test_keys(content, texts, expected):
    assert apply_overrides(content, texts) == expected


@given(st.text(max_size=40))
def test_anything_is_set_or_is_one_line(text):
    try:
        apply_overrides({"a": {"b": 1}, "l": [1, {"x": "y"}], "n": "m"}, [text])
    except ZooError as error:
        assert str(error).startswith("--set ") and "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    ["x", "=1", "a.=1", "a..b=1", ".a=1", "'a=1", "a.b", ".".join("a" * 60) + "=1",
     "a=[", "a={b", "a=&x [*x]]", "a=" + "9" * 5000, "l.9=1", "l." + "9" * 5000 + "=1"],
)  # fmt: skip
def test_what_cannot_be_set_is_one_short_line(text):
    with pytest.raises(ZooError) as raised:
        apply_overrides({"l": [1], "a": None}, [text] if text != "a=&x [*x]]" else ["a=[*x]"])
    assert str(raised.value).startswith("--set ") and len(str(raised.value)) < 300


def test_fields_of_registered_parts_are_known():
    zoo = load_zoo()
    run = {"backbone": "self-forcing", "method": "dmd", "dataset": "digits"}
    text = "backbone.initial=2026"
    assert apply_overrides(run, [text], types_of_run(zoo))["backbone"]["initial"] == "2026"
    study = {"base": run, "arms": {"w0.3": {"backbone": {"memory": "full"}}}}
    for path in ("base", "arms.w0.3"):
        found = apply_overrides(study, [f"{path}.{text}"], types_of_study(zoo))
        place = found["base"] if path == "base" else found["arms"]["w0.3"]
        assert place["backbone"]["initial"] == "2026"
    found = apply_overrides(study, ["name=2026", "seeds=[3]"], types_of_study(zoo))
    assert (found["name"], found["seeds"]) == ("2026", [3])
