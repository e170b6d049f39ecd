"""The documentation of options: types, ranges, defaults and comments of any pydantic model."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationInfo, create_model, field_validator

from salt_zoo.core.base.config import StrictModel
from salt_zoo.plugin.options.option_docs import OptionDoc, option_docs


class Colour(Enum):
    RED = "red"


class Inner(StrictModel):
    """What the group is for.

    Not this.
    """

    #: How deep.
    depth: Annotated[int, Field(ge=1, lt=9)] = 3
    plain: bool = True


class Base(StrictModel):
    #: Two lines
    #: of text.
    rate: float
    # an ordinary comment
    name: str | None = None
    again: int = 1  #: Beside it.


class Options(Base):
    again: int = 2
    inner: Inner = Inner(depth=5)
    off: Inner | None = None
    many: dict[str, list[Inner]] = {}
    #: A text with "#: this" in it,
    #: and an empty line that ends it.

    described: int = Field(4, description="By pydantic.")
    word: Literal["a", "b"] | Literal[1] | None = "a"
    colours: list[Colour] = [Colour.RED]
    pair: tuple[Annotated[float, Field(gt=0)], float] = (1.0, 2.0)
    lists: Annotated[dict[Annotated[int, Field(ge=1)], float], Field(min_length=1)] = {4: 1.0}
    path: Path | None = Path("a/b")
    anything: Any = float("inf")
    other: Annotated[int, Field(validation_alias="written")] = 0

    @field_validator("again")
    @classmethod
    def _kept(cls, again: int, info: ValidationInfo) -> int:
        return again


@pytest.fixture
def options() -> dict[str, OptionDoc]:
    return {option.key: option for option in option_docs(Options, {"again": 7})}


def test_types_ranges_and_defaults(options):
    found = {key: (o.type, o.range, o.default) for key, o in options.items()}
    assert found == {
        "rate": ("number", "", None),
        "name": ("text or null", "", None),
        "again": ("whole number", "", 7),
        "inner": ("group", "", {}),
        "inner.depth": ("whole number", ">= 1, < 9", 5),
        "inner.plain": ("true or false", "", True),
        "off": ("group or null", "", None),
        "off.depth": ("whole number", ">= 1, < 9", 3),
        "off.plain": ("true or false", "", True),
        "many": ("group {text: list of groups}", "", {}),
        "many.NAME.N.depth": ("whole number", ">= 1, < 9", 3),
        "many.NAME.N.plain": ("true or false", "", True),
        "described": ("whole number", "", 4),
        "word": ("one of a | b | 1 or null", "", "a"),
        "colours": ("list, each one of red", "", ["red"]),
        "pair": ("list of 2 numbers", "each > 0", [1.0, 2.0]),
        "lists": ("group {whole number: number}", "length >= 1; keys >= 1", {4: 1.0}),
        "path": ("path or null", "", "a/b"),
        "anything": ("anything", "", "inf"),
        "written": ("whole number", "", 0),
    }
    assert [key for key, option in options.items() if option.required] == ["rate"]
    assert [key for key, option in options.items() if option.is_group] == ["inner", "off"]


def test_comments(options):
    assert options["rate"].text == "Two lines of text."
    assert options["name"].text == ""
    assert options["again"].text == "Beside it."  # of the base class
    assert options["inner"].text == options["off"].text == "What the group is for."
    assert options["inner.depth"].text == options["off.depth"].text == "How deep."
    assert options["inner.plain"].text == ""
    assert options["described"].text == "By pydantic."


def test_defaults_of_a_registration_are_what_pydantic_makes_of_them():
    registered = {"rate": 1.0, "inner": {"plain": False}, "off": {"depth": 4}}
    found = {option.key: option.default for option in option_docs(Options, registered)}
    made = Options.model_validate(registered)
    assert made.off is not None
    for name, group in (("inner", made.inner), ("off", made.off)):
        assert found[f"{name}.depth"] == group.depth
        assert found[f"{name}.plain"] == group.plain
        assert found[name] == {}


def test_a_model_without_source():
    model = create_model("Made", __base__=StrictModel, steps=(int, 4))
    assert option_docs(model) == [OptionDoc("steps", "whole number", "", 4, False, False, "")]
    namespace: dict[str, Any] = {"StrictModel": StrictModel}
    exec("class Typed(StrictModel):\n    #: Lost.\n    steps: int = 4", namespace)
    assert [option.text for option in option_docs(namespace["Typed"])] == [""]


def test_a_class_inside_a_function():
    class Local(StrictModel):
        text: str = """a
#: not a comment"""
        #: Here.
        steps: int = 4

    assert [option.text for option in option_docs(Local)] == ["", "Here."]


class Tree(StrictModel):
    #: Below it.
    branches: list[Tree] = []
    made: int = 0


def test_a_model_that_contains_itself():
    assert [option.key for option in option_docs(Tree)] == ["branches", "made"]


def test_a_default_that_cannot_be_made_here():
    model = create_model("Made", steps=(int, Field(default_factory=lambda: 1 // 0)))
    assert [option.default for option in option_docs(model)] == ["computed"]
