"""The full-size studies say what the authors' files say, value by value.

`published_recipes.yaml` has a row for each value, with its source; see there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.study.schema import StudyConfig, load_study, read_study, runs_of
from salt_zoo.core import flow
from salt_zoo.plugin.manager import load_zoo

TABLE = yaml.safe_load(
    (Path(__file__).parent / "published_recipes.yaml").read_text(encoding="utf-8")
)
STUDIES = ("wan_t2v", "self_forcing_1.3b", "wan_i2v")
#: Groups of keys that are one value of the authors'.
WHOLE = ("method.steps", "method.objectives.cache-alignment.reference")


def loop_turns(turns: int) -> int:
    assert turns % 5 == 0
    return turns // 5


def step_lists(drawn: list[tuple[list[int], float]]) -> dict[int, float]:
    """Lists of timesteps before the shift, each with its probability: ours by number of steps."""
    for timesteps, _ in drawn:
        assert [t / 1000 for t in timesteps] == pytest.approx(flow.step_list(len(timesteps), 1.0))
    return {len(timesteps): probability for timesteps, probability in drawn}


CONVERSIONS: dict[str, Any] = {
    "same": lambda value: value,
    "loop turns": loop_turns,
    "timesteps": lambda t: t / 1000,
    "guidance": lambda scale: scale + 1,
    "block of 40": lambda index: index / 40,
    "step list": step_lists,
    "betas": lambda betas: [betas["beta1"], betas["beta2"]],
    "processes": math.prod,
    "frames first": lambda shape: [shape[2], shape[1], *shape[3:]],
}


@pytest.fixture(scope="module")
def values() -> dict[tuple[str, str], Any]:
    """Every value of the studies: (study/arm, key) -> value."""
    zoo = load_zoo()
    found: dict[tuple[str, str], Any] = {}
    for name in STUDIES:
        content, _ = read_study(name)
        teacher = content["base"]["backbone"].get("teacher")
        options = zoo.backbones[content["base"]["backbone"]["name"]].load().Config
        if "teacher" not in options.model_fields:  # a backbone whose networks all have one size
            content["base"]["backbone"].pop("teacher", None)
        study = load_study(content, name)
        for arm, run in runs_of(study, zoo, name).items():
            plain = run.plain()
            plain["backbone"].pop("teacher", None)
            part = zoo.sizes.configure(plain["backbone"]["size"], {}, "test")
            made = zoo.sizes.create(plain["backbone"]["size"], part, zoo)
            plain["backbone"]["latent_shape"] = list(made.latent_shape)
            if teacher:
                plain["backbone"]["teacher"] = teacher
            plain["evaluation"] = _of_evaluation(study, arm)
            for group in ("training", "execution", "method", "backbone", "evaluation"):
                for key, value in leaves(plain[group], group):
                    found[f"{name}/{arm}", key] = value
    return found


def _of_evaluation(study: StudyConfig, arm: str) -> dict[str, Any]:
    """What of it is the authors': how the row `teacher` is made, and what is the arm's own."""
    evaluation, own = study.evaluation, study.arm_evaluation(arm)
    found = {
        "teacher": evaluation.teacher.model_dump(mode="json"),
        "timestep_shift": evaluation.timestep_shift,
    }
    own_settings = own.model_dump(mode="json", exclude_defaults=True)
    return found | ({"arm": own_settings} if own_settings else {})


def leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if key in WHOLE:
        yield key, {int(name): number for name, number in value.items()}
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{key}.{name}")
    else:
        yield key, value


def matches(arm: str, group: str) -> bool:
    return any(fnmatchcase(arm, pattern) for pattern in TABLE["arms"][group])


def rows() -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Each row with each key of ours that it gives, and our value of it."""
    for row in TABLE["rows"]:
        for key, value in row["ours"].items():
            yield row, key, value


@pytest.mark.parametrize(
    ("row", "key", "ours"),
    [pytest.param(*each, id=f"{each[1]}-{each[0]['arms']}") for each in rows()],
)
def test_ours_is_theirs_in_our_unit(values, row, key, ours):
    assert CONVERSIONS[row.get("by", "same")](row["theirs"]) == ours, row["key"]
    there = {arm: value for (arm, name), value in values.items() if name == key}
    meant = {arm: value for arm, value in there.items() if matches(arm, row["arms"])}
    assert meant, f"no arm of {row['arms']!r} has {key}"
    assert all(value == ours for value in meant.values()), meant


def test_every_value_is_in_the_table_once(values):
    """A value that is changed or added has to name its source, or say that it has none."""
    for (arm, key), value in values.items():
        published = [row for row, name, _ in rows() if name == key and matches(arm, row["arms"])]
        own = [
            entry
            for entry in TABLE["not published"]
            if fnmatchcase(key, entry["key"]) and matches(arm, entry["arms"])
        ]
        found = len(published) + len(own)
        assert found == 1, f"{arm}: {key} ({value!r}) is in the table {found} times, not once"


def test_nothing_in_the_table_is_about_nothing(values):
    for entry in TABLE["not published"]:
        assert entry["why"]
        assert any(
            fnmatchcase(key, entry["key"]) and matches(arm, entry["arms"]) for arm, key in values
        ), entry
    arms = {arm for arm, _ in values}
    for group, patterns in TABLE["arms"].items():
        for pattern in patterns:
            assert any(fnmatchcase(arm, pattern) for arm in arms), f"{group}: {pattern}"
    used = {row["arms"] for row in TABLE["rows"]} | {e["arms"] for e in TABLE["not published"]}
    assert used == set(TABLE["arms"])
    assert set(TABLE["conversions"]) == set(CONVERSIONS)
    assert {row["source"] for row in TABLE["rows"]} == set(TABLE["sources"])
    assert all(row["file"] and row["key"] for row in TABLE["rows"])


def test_the_first_page_tells_how_the_authors_code_differs():
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = page.partition("### Published recipes")[2].partition("\n## ")[0]
    names = re.findall(r"^- \*\*(.+?)\.\*\*", section, re.M)
    assert names == [entry["name"] for entry in TABLE["differences"]]
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
    assert f"{words[len(names)]} conventions differ" in section
    for entry in TABLE["differences"]:
        assert entry["theirs"] != entry["ours"] and entry["file"]
        assert entry["source"] in TABLE["sources"]
    assert all(f"`{name}`" in section for name in STUDIES)


def test_the_defaults_are_those_of_the_recipe():
    """Whoever writes no number gets the published one."""
    zoo = load_zoo()
    from salt_zoo.config.training import EMAConfig, TrainingConfig

    assert (TrainingConfig().updates, EMAConfig().start, EMAConfig().decay) == (
        120,
        40,
        0.99,
    )
    term = zoo.objectives.configure("cache-alignment", {}, "test")
    assert term.start == 200


@pytest.mark.parametrize("name", ["quick", "digits", "self_forcing", "cda"])
def test_no_committed_report_rests_on_those_defaults(name):
    """Their numbers must not move when a recipe's does."""
    study = load_study(read_study(name)[0], name)
    training = study.base["training"]
    assert {"updates", "batch_size", "clip", "checkpoint_every"} <= set(training)
    assert set(training["ema"]) == {"decay", "start"}
    assert "learning_rate" in training["optimizers"]["student"]
    for arm in study.arms.values():
        method = arm["method"]
        if method["name"] == "consistency":
            continue
        assert "updates" in method["fake_score"]
        alignment = method["objectives"].get("cache-alignment")
        assert alignment is None or {"weight", "start"} <= set(alignment)


@pytest.mark.parametrize("name", STUDIES)
def test_arms_that_are_compared_train_equally_long(name, values):
    """Except where a study says how long the authors trained, a hypothesis is about the method."""
    study = load_study(read_study(name)[0], name)
    for hypothesis in study.hypotheses:
        a, b = (values[f"{name}/{arm}", "training.updates"] for arm in (hypothesis.a, hypothesis.b))
        assert a == b, hypothesis


def test_the_alignment_is_used_in_the_study(values):
    arm = "self_forcing_1.3b/cda"
    start = values[arm, "method.objectives.cache-alignment.start"]
    assert start < values[arm, "training.updates"]
