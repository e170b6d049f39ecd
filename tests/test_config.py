"""Configuration: YAML files, overrides, and errors that name the key and the remedy."""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from salt_zoo.config.overrides import apply_overrides
from salt_zoo.config.run import RunConfig
from salt_zoo.core.base.config import StrictModel, validate
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.yaml import read_yaml


class Adam(StrictModel):
    rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)


class Muon(StrictModel):
    momentum: float = 0.9


class Arm(StrictModel):
    method: str
    seeds: list[int] = Field(default_factory=list)
    optimizer: Adam | None = None


class Study(StrictModel):
    name: Literal["quick", "long"] = "quick"
    arms: list[Arm] = Field(default_factory=list)
    by_role: dict[str, list[Adam]] = Field(default_factory=dict)
    pair: tuple[Adam, Muon] = (Adam(), Muon())
    either: Adam | Muon = Adam()
    noted: Annotated[Arm | None, Field(description="annotated")] = None


RUN = {"method": "m", "backbone": "b", "dataset": "d"}


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        (Study, {"nmae": "quick"}, "nmae: unknown key; did you mean 'name'?"),
        (
            Study,
            {"arms": [{"method": "a"}, {"methd": "b"}]},
            "arms.1.methd: unknown key; did you mean 'method'?",
        ),
        (
            Study,
            {"arms": [{"method": "a", "optimizer": {"rat": 1}}]},
            "arms.0.optimizer.rat: unknown key; did you mean 'rate'?",
        ),
        (
            Study,
            {"by_role": {"rate": [{"betsa": 1}]}},
            "by_role.rate.0.betsa: unknown key; did you mean 'betas'?",
        ),
        (
            Study,
            {"pair": [{}, {"momentun": 1}]},
            "pair.1.momentun: unknown key; did you mean 'momentum'?",
        ),
        (Study, {"either": {"momentums": 1}}, "momentums: unknown key; did you mean 'momentum'"),
        (
            Study,
            {"noted": {"method": "a", "sedes": []}},
            "noted.sedes: unknown key; did you mean 'seeds'?",
        ),
        (Study, {"zzz": 1}, "zzz: unknown key; known: arms, by_role, either, name, noted, pair"),
        (Study, {"arms": [{}]}, "arms.0.method: this key is required"),
        (Study, {"name": "slow"}, "name: should be 'quick' or 'long', not 'slow'"),
        (Study, {"name": "quik"}, "'quick' or 'long', not 'quik'; did you mean 'quick'?"),
        (Study, {"arms": {"method": "a"}}, "arms: should be a valid list, not {'method': 'a'}"),
        (
            Study,
            {"arms": [{"method": "a", "seeds": ["x"]}]},
            "arms.0.seeds.0: should be a valid integer",
        ),
        (Study, {"pair": [{"rate": "fast"}, {}]}, "pair.0.rate: should be a valid number"),
        (
            RunConfig,
            {**RUN, "training": {"updtes": 3}},
            "training.updtes: unknown key; did you mean 'updates'?",
        ),
        (
            RunConfig,
            {**RUN, "training": {"optimizers": {"student": {"lerning_rate": 1}}}},
            "training.optimizers.student.lerning_rate: unknown key; did you mean 'learning_rate'",
        ),
        (
            RunConfig,
            {**RUN, "training": {"optimizers": {"name": {"beta": 1}}}},
            "training.optimizers.name.beta: unknown key; did you mean 'betas'?",
        ),
        (
            RunConfig,
            {**RUN, "training": {"ema": {"decya": 1}}},
            "training.ema.decya: unknown key; did you mean 'decay'?",
        ),
        (
            RunConfig,
            {**RUN, "training": {"updates": 0}},
            "training.updates: should be greater than or equal to 1, not 0",
        ),
        (
            RunConfig,
            {**RUN, "training": {"updates": "many"}},
            "training.updates: should be a valid integer",
        ),
        (
            RunConfig,
            {**RUN, "training": None},
            "training: should be a group of keys, not None; omit it for its defaults",
        ),
        (
            RunConfig,
            {**RUN, "execution": {"shard": -1}},
            "execution.shard: should be greater than or equal to 1, not -1",
        ),
        (
            RunConfig,
            {**RUN, "quality": {"metrics": [3]}},
            "quality.metrics.0: must be a name, or a group of keys with a 'name', not 3",
        ),
        (
            RunConfig,
            {**RUN, "training": {"optimizers": {"a": {"betas": [0.1]}}}},
            "training.optimizers.a.betas.1: this key is required",
        ),
        (
            RunConfig,
            {**RUN, "quality": {"steps": []}},
            "quality.steps: should have at least 1 item, not []",
        ),
        (
            RunConfig,
            {**RUN, "quality": {"steps": [4, 2, 4]}},
            "quality.steps: 4 is listed twice",
        ),
        (
            RunConfig,
            {**RUN, "method": {"name": 3, "steps": 4}},
            "method: its 'name' must be a text, not 3",
        ),
        (
            RunConfig,
            {**RUN, "method": 3},
            "method: must be a name, or a group of keys with a 'name', not 3",
        ),
        (
            RunConfig,
            {**RUN, "quality": {"evry": 3}},
            "quality.evry: unknown key; did you mean 'every'?",
        ),
        (RunConfig, {"method": "m"}, "backbone: this key is required"),
    ],
)
def test_errors_name_the_key_and_what_would_be_right(model, content, message):
    with pytest.raises(ZooError) as raised:
        validate(model, content, "run.yaml")
    text = str(raised.value)
    assert text.startswith("run.yaml: ")
    assert message in text
    assert len(text.splitlines()) == 1


def test_a_long_value_is_cut():
    with pytest.raises(ZooError) as raised:
        validate(Study, {"arms": "x" * 1000}, "here")
    assert len(str(raised.value)) < 200


def test_not_a_number_is_refused():
    with pytest.raises(ZooError, match="finite"):
        validate(Adam, {"rate": float("nan")}, "here")


def test_values_cannot_change_later():
    with pytest.raises(ValidationError):
        Adam().rate = 2.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2", "line 1: not valid YAML"),
        (b"a: 1\n b: 2", "line 2: not valid YAML"),
        (b"a: \x00", "not valid YAML"),
        (b"\xff\xfe\xff", "cannot be read"),
        (b"- 1\n- 2", "should be a group of keys, not [1, 2]"),
        (b"only text", "should be a group of keys, not 'only text'"),
        (b"a: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration(content, message, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ZooError) as raised:
        read_yaml(path)
    assert str(raised.value).startswith(str(path)) and message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_missing_file_and_an_empty_one(tmp_path):
    with pytest.raises(ZooError, match="there is no such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ZooError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "empty.yaml").touch()
    assert read_yaml(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b=3", {"a": {"b": 3}, "arms": [{"n": 1}, {"n": 2}]}),
        ("a.c.d=[1, x]", {"a": {"b": 1, "c": {"d": [1, "x"]}}, "arms": [{"n": 1}, {"n": 2}]}),
        ("arms.1.n=null", {"a": {"b": 1}, "arms": [{"n": 1}, {"n": None}]}),
        ("arms.0={m: 5}", {"a": {"b": 1}, "arms": [{"m": 5}, {"n": 2}]}),
        ("a=b=c", {"a": "b=c", "arms": [{"n": 1}, {"n": 2}]}),
        ("new.key=", {"a": {"b": 1}, "arms": [{"n": 1}, {"n": 2}], "new": {"key": None}}),
    ],
)
def test_overrides(override, expected):
    content = {"a": {"b": 1}, "arms": [{"n": 1}, {"n": 2}]}
    before = copy.deepcopy(content)
    assert apply_overrides(content, [override]) == expected
    assert content == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a.b", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("a..b=3", "write KEY=VALUE"),
        ("a.b=[", "not valid YAML"),
        ("arms.2.n=1", "arms is a list of 2"),
        ("none.0=1", "is a list of 0, so '0' is not in it; write the whole list, as in none=[a"),
        ("arms.x.n=1", "'x' must be a number"),
        ("arms.².n=1", "must be a number"),
        ("rate.size=digits", "rate is 0.5, not a group of keys"),
    ],
)
def test_overrides_that_cannot_be(override, message):
    content = {"a": {"b": 1}, "arms": [{"n": 1}, {"n": 2}], "rate": 0.5, "none": []}
    with pytest.raises(ZooError) as raised:
        apply_overrides(content, [override])
    assert message in str(raised.value) and repr(override) in str(raised.value)


keys = st.lists(st.text("abcxyz_-", min_size=1, max_size=4), min_size=1, max_size=4)
values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=3)


def at(content, path):
    for key in path:
        content = content[key]
    return content


@given(keys, values)
def test_what_is_set_is_there(path, value):
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n")
    assert at(apply_overrides({}, [f"{'.'.join(path)}={text}"]), path) == value


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=6))
def test_the_last_override_of_a_key_holds(pairs):
    assert apply_overrides({}, [f"{key}={value}" for key, value in pairs]) == dict(pairs)


class Required(StrictModel):
    arms: dict[str, dict[str, int]]
    rest: dict[str, int] = {}


def test_only_what_has_a_default_may_be_left_out():
    """The remedy of a line must not lead to the next one."""
    for content, message in (
        ({"arms": None}, "arms: should be a group of keys, not None; write its keys"),
        ({"arms": {"a": None}}, "arms.a: should be a group of keys, not None; write its keys"),
        ({"arms": {}, "rest": None}, "not None; omit it for its defaults, or write its keys"),
    ):
        with pytest.raises(ZooError) as raised:
            validate(Required, content, "here")
        assert str(raised.value).endswith(message)


@pytest.mark.parametrize("content", [None, [], 3, "x", True, float("nan")])
def test_what_is_no_group_at_all(content):
    with pytest.raises(ZooError, match=r"^f: part: should be a group of keys, not ") as raised:
        validate(Study, content, "f: part")
    assert "\n" not in str(raised.value)
