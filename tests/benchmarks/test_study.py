"""Studies: files, options of the command line, budgets, and what is said of mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.budget import match_budget
from benchmarks.study import (
    STUDIES,
    find_study,
    load_study,
    read_study,
    runs_of,
    select_arms,
)
from salt_zoo.errors import ZooError
from salt_zoo.plugins import load_zoo


@pytest.fixture(scope="module")
def zoo():
    return load_zoo()


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
def test_every_shipped_study_resolves(name, zoo):
    content, path = read_study(name)
    study = load_study(content, str(path))
    assert study.name == name
    runs = runs_of(study, zoo, str(path))
    assert list(runs) == list(study.arms)
    for metric in study.evaluation.metrics:
        assert metric in zoo.metrics


def test_digits_has_the_promised_arms_and_seeds():
    study = load_study(read_study("digits")[0], "digits")
    assert len(study.seeds) >= 5
    arms = study.arms
    published = arms["sc-dmd-published"]["method"]["objectives"]["self-consistency"]
    assert published == {"weight": 0.2}
    velocity = arms["sc-dmd-velocity"]["method"]["objectives"]["self-consistency"]
    assert velocity == {"weight": 0.3, "space": "velocity", "time_weight": "none"}
    assert (arms["dmd-8"]["method"]["steps"], arms["dmd-4"]["method"]["steps"]) == (8, 4)
    assert {o.metric for o in study.primary} >= {"semigroup-defect", "digits-rigidity"}


def test_arms_of_one_study_differ_in_their_method_alone():
    study = load_study(read_study("quick")[0], "quick")
    dmd, sc = study.arms["dmd"]["method"], study.arms["sc-dmd"]["method"]
    shared = dmd["objectives"]
    assert {**sc["objectives"]}.items() >= shared.items()
    assert {k: v for k, v in sc.items() if k not in ("name", "objectives")} == {
        k: v for k, v in dmd.items() if k not in ("name", "objectives")
    }


def test_matching_compute_gives_cheaper_methods_more_updates(zoo):
    study = load_study(read_study("quick")[0], "quick")
    runs = match_budget(study, runs_of(study, zoo, "quick"), zoo)
    updates = {label: run.config.training.updates for label, run in runs.items()}
    assert updates["dmd"] == study.base["training"]["updates"]
    assert updates["consistency"] > 2 * updates["dmd"]
    assert updates["sc-dmd"] < updates["dmd"]  # it has passes of its own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"evaluation": {"metrics": ["digits-fd"], "ntf": [1]}},
            "evaluation.ntf: unknown key; did you mean 'nfe'",
        ),
        ({"base": {"seed": 1}}, "base.seed"),
        ({"budget_of": "dmdd", "match": "compute"}, "did you mean 'dmd'"),
        (
            {"primary": [{"a": "sc", "b": "dmd", "metric": "digits-fd", "nfe": 1}]},
            "unknown arm 'sc'",
        ),
        ({"arms": {}}, "arms"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_a_wrong_study_is_one_line(change, said):
    content = {**read_study("quick")[0], **change}
    with pytest.raises(ZooError) as caught:
        load_study(content, "my.yaml")
    text = str(caught.value)
    assert said in text and text.startswith("my.yaml: ") and "\n" not in text


LONG = {"lengths": [1, 4], "nfe": [4]}


@pytest.mark.parametrize(
    ("outcome", "long", "said"),
    [
        ({"length": 4, "slope": True}, LONG, "primary.0: give length or slope, not both"),
        ({"length": 10}, LONG, "primary.0.length: 10 is not of evaluation.long.lengths: 1, 4"),
        ({"slope": True, "nfe": 2}, LONG, "primary.0.nfe: 2 is not of evaluation.long.nfe: 4"),
        ({"slope": True}, None, "primary.0: there are no long videos; see evaluation.long"),
        ({}, {"lengths": [0]}, "evaluation.long.lengths.0"),
        ({}, {"length": [1]}, "evaluation.long.length: unknown key; did you mean 'lengths'"),
    ],
)
def test_a_wrong_wish_for_long_videos_is_one_line(outcome, long, said):
    content = read_study("quick")[0]
    content["evaluation"] = {**content["evaluation"], "long": long}
    one = {"a": "dmd", "b": "consistency", "metric": "digits-fd", "nfe": 4}
    content["primary"] = [{**one, **outcome}]
    with pytest.raises(ZooError) as caught:
        load_study(content, "my.yaml")
    text = str(caught.value)
    assert said in text and text.startswith("my.yaml: ") and "\n" not in text


def test_outcomes_about_long_videos():
    content = read_study("quick")[0]
    content["evaluation"] = {**content["evaluation"], "long": LONG}
    one = {"a": "dmd", "b": "consistency", "metric": "digits-fd", "nfe": 4}
    content["primary"] = [{**one, "length": 4}, {**one, "slope": True}, one]
    found = load_study(content, "my.yaml").primary
    assert [(o.length, o.slope) for o in found] == [(4, False), (None, True), (None, False)]


def test_an_unknown_study_is_suggested(tmp_path: Path):
    with pytest.raises(ZooError, match="did you mean 'quick'"):
        find_study("quik")
    with pytest.raises(ZooError, match="no such file"):
        read_study(str(tmp_path / "absent.yaml"))


def test_selecting_arms_by_label_or_method():
    study = load_study(read_study("digits")[0], "digits")
    chosen = select_arms(study, ["sc-dmd", "dmd-8"], "digits")
    assert list(chosen.arms) == ["dmd-8", "sc-dmd-published", "sc-dmd-velocity"]
    assert all({o.a, o.b} <= {*chosen.arms, "teacher-naive"} for o in chosen.primary)
    with pytest.raises(ZooError, match="did you mean"):
        select_arms(study, ["sc-dmdd"], "digits")
    with pytest.raises(ZooError, match="budget"):
        select_arms(study, ["consistency"], "digits")


def test_a_study_may_be_anyones_file(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(read_study("quick")[0]))
    assert find_study(str(path)) == path
