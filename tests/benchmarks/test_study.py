"""Studies: files, options of the command line, budgets, and what is said of mistakes in them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml

from benchmarks.runner.arms import study_of
from benchmarks.runner.budget import match_budget
from benchmarks.study.hypotheses import check_hypotheses, measured_hypotheses, with_own_samplers
from benchmarks.study.schema import (
    STUDIES,
    find_study,
    load_study,
    read_study,
    runs_of,
    select_arms,
)
from salt_zoo.config.metrics import configure_metrics
from salt_zoo.core.base.errors import ZooError


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
def test_every_shipped_study_resolves(name, zoo):
    content, path = read_study(name)
    study = load_study(content, str(path))
    assert study.name == name
    runs = runs_of(study, zoo, str(path))
    assert list(runs) == list(study.arms)
    assert configure_metrics(zoo, study.evaluation.metrics)


def test_digits_has_the_promised_arms_and_seeds():
    study = load_study(read_study("digits")[0], "digits")
    assert len(study.seeds) >= 5
    arms = study.arms
    published = arms["sc-dmd-published"]["method"]["objectives"]["self-consistency"]
    assert published == {"weight": 0.2}
    velocity = arms["sc-dmd-velocity"]["method"]["objectives"]["self-consistency"]
    assert velocity == {"weight": 0.3, "space": "velocity", "time_weight": "none"}
    assert (arms["dmd-8"]["method"]["steps"], arms["dmd-4"]["method"]["steps"]) == (8, 4)
    assert {o.metric for o in study.hypotheses} >= {"semigroup-defect", "digits-rigidity"}


def test_arms_of_one_study_differ_in_their_method_alone():
    study = load_study(read_study("quick")[0], "quick")
    dmd, sc = study.arms["dmd"]["method"], study.arms["sc-dmd"]["method"]
    shared = dmd["objectives"]
    assert {**sc["objectives"]}.items() >= shared.items()
    assert {k: v for k, v in sc.items() if k not in ("name", "objectives")} == {
        k: v for k, v in dmd.items() if k not in ("name", "objectives")
    }


def test_matching_compute_gives_cheaper_methods_more_updates(zoo):
    content = read_study("quick")[0]
    content["base"]["backbone"]["size"] = "test-small"
    study = select_arms(load_study(content, "quick"), ["consistency", "dmd", "sc-dmd"], "quick")
    runs, _ = match_budget(study, runs_of(study, zoo, "quick"), zoo)
    updates = {label: run.config.training.updates for label, run in runs.items()}
    assert updates["dmd"] == study.base["training"]["updates"]
    assert updates["consistency"] > 2 * updates["dmd"]
    assert updates["sc-dmd"] < updates["dmd"]  # it has passes of its own


def arm_with(evaluation):
    arms = {"a": {"method": "dmd", "evaluation": evaluation}}
    return {"arms": arms, "match": "updates", "hypotheses": []}


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
            {"hypotheses": [{"a": "sc", "b": "dmd", "metric": "digits-fd", "nfe": 1}]},
            "unknown arm 'sc'",
        ),
        ({"seeds": [0, 1, 0]}, "seeds: 0 is listed twice"),
        ({"evaluation": {"metrics": ["digits-fd"], "nfe": [1, 1]}}, "nfe: 1 is listed twice"),
        ({"evaluation": {"metrics": ["digits-fd"], "samplers": ["sde", "sde"]}}, "samplers: 'sde'"),
        ({"evaluation": {"metrics": ["digits-fd", "digits-fd"]}}, "'digits-fd' is listed twice"),
        (
            {"evaluation": {"metrics": [{"name": "digits-fd", "label": "A b"}]}},
            "evaluation.metrics.0",
        ),
        (
            {"evaluation": {"metrics": ["digits-fd"], "long": {"lengths": [1, 1]}}},
            "evaluation.long.lengths: 1 is listed twice",
        ),
        (
            {"arms": {"teacher-naive": {"method": "dmd"}}, "match": "updates", "hypotheses": []},
            "arms.teacher-naive: the name belongs to a baseline",
        ),
        (arm_with({"samplr": "ode"}), "arms.a.evaluation.samplr: unknown key; did you mean"),
        (arm_with({"times": {4: [1.0, 0.5]}}), "times.4: 2 times are not 4 steps"),
        (arm_with({"times": {1: [0.0]}}), "step times must fall"),
        (arm_with({"times": {3: [1, 0.9, 0.5]}}), "times: 3 is not of evaluation.nfe: 1, 2, 4"),
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
    ("hypothesis", "long", "said"),
    [
        ({"length": 4, "slope": True}, LONG, "hypotheses.0: give length or slope, not both"),
        ({"length": 10}, LONG, "hypotheses.0.length: 10 is not of evaluation.long.lengths: 1, 4"),
        ({"slope": True, "nfe": 2}, LONG, "hypotheses.0.nfe: 2 is not of evaluation.long.nfe: 4"),
        ({"slope": True}, None, "hypotheses.0: there are no long videos; see evaluation.long"),
        ({}, {"lengths": [0]}, "evaluation.long.lengths.0"),
        ({}, {"length": [1]}, "evaluation.long.length: unknown key; did you mean 'lengths'"),
    ],
)
def test_a_wrong_wish_for_long_videos_is_one_line(hypothesis, long, said):
    content = read_study("quick")[0]
    content["evaluation"] = {**content["evaluation"], "long": long}
    one = {"a": "dmd", "b": "consistency", "metric": "digits-fd", "nfe": 4}
    content["hypotheses"] = [{**one, **hypothesis}]
    with pytest.raises(ZooError) as caught:
        load_study(content, "my.yaml")
    text = str(caught.value)
    assert said in text and text.startswith("my.yaml: ") and "\n" not in text


def test_hypotheses_about_long_videos():
    content = read_study("quick")[0]
    content["evaluation"] = {**content["evaluation"], "long": LONG}
    one = {"a": "dmd", "b": "consistency", "metric": "digits-fd", "nfe": 4}
    content["hypotheses"] = [{**one, "length": 4}, {**one, "slope": True}, one]
    found = load_study(content, "my.yaml").hypotheses
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
    assert all({o.a, o.b} <= {*chosen.arms, "teacher-naive"} for o in chosen.hypotheses)
    with pytest.raises(ZooError, match="did you mean"):
        select_arms(study, ["sc-dmdd"], "digits")
    with pytest.raises(ZooError, match="budget"):
        select_arms(study, ["consistency"], "digits")


def test_a_label_wins_over_the_name_of_a_method():
    content = {
        **read_study("quick")[0],
        "arms": {"dmd": {"method": "dmd"}, "mine": {"method": "dmd"}, "sc": {"method": "sc-dmd"}},
        "match": "updates",
        "hypotheses": [],
        "tuning": None,
    }
    study = load_study(content, "mine.yaml")
    assert list(select_arms(study, ["dmd"], "mine.yaml").arms) == ["dmd"]
    assert list(select_arms(study, ["mine", "sc-dmd"], "mine.yaml").arms) == ["mine", "sc"]


WANTED = {"a": "dmd", "b": "consistency", "metric": "digits-fd", "nfe": 4}


@pytest.mark.parametrize(
    ("hypothesis", "said"),
    [
        (
            {"metric": "digits-fdd"},
            "hypotheses.0.metric: digits-fdd is not of evaluation.metrics; did",
        ),
        ({"nfe": 3}, "hypotheses.0.nfe: 3 is not of evaluation.nfe; known: 1, 4"),
        ({"sampler": "ode"}, "hypotheses.0.sampler: ode is not of evaluation.samplers"),
        (
            {"metric": "semigroup-defect"},
            "hypotheses.0.nfe: semigroup-defect is measured with 8 steps",
        ),
        (
            {"metric": "cache-distance", "nfe": 8, "sampler": "sde"},
            "hypotheses.0.sampler: cache-distance makes rollouts of its own by ode",
        ),
        ({"metric": "semigroup-defect", "nfe": 8}, None),
        ({"metric": "cache-distance", "nfe": 8}, None),
        (
            {"metric": "digits-rigidity", "length": 2},
            "hypotheses.0.metric: digits-rigidity is not of",
        ),
        (
            {"length": 2, "sampler": "ode"},
            "hypotheses.0.sampler: ode is not evaluation.long.sampler",
        ),
        ({"length": 2}, None),
        ({}, None),
    ],
)
def test_a_hypothesis_must_be_measured(hypothesis, said, zoo):
    content = read_study("quick")[0]
    names = ["digits-fd", "digits-rigidity", "semigroup-defect", "cache-distance"]
    long = {"lengths": [1, 2], "metrics": ["digits-fd"]}
    content["evaluation"] = {"metrics": names, "nfe": [1, 4], "long": long}
    content["hypotheses"] = [{**WANTED, **hypothesis}]
    study = load_study(content, "my.yaml")
    if said is None:
        check_hypotheses(study, zoo, "my.yaml")
        assert measured_hypotheses(study, zoo) == [0]
        return
    assert measured_hypotheses(study, zoo) == []
    with pytest.raises(ZooError, match=r"^my\.yaml: ") as caught:
        check_hypotheses(study, zoo, "my.yaml")
    assert said in str(caught.value)


def test_a_hypothesis_need_not_know_how_a_metric_makes_its_rollouts(zoo):
    content = read_study("quick")[0]
    content["evaluation"] = {"metrics": ["digits-fd", "cache-distance"]}
    content["hypotheses"] = [WANTED, {**WANTED, "metric": "cache-distance", "nfe": 8}]
    found = with_own_samplers(load_study(content, "my.yaml"), zoo).hypotheses
    assert [hypothesis.sampler for hypothesis in found] == ["sde", "ode"]


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.yaml")))
def test_every_shipped_hypothesis_is_measured(name, zoo):
    content, path = read_study(name)
    check_hypotheses(load_study(content, str(path)), zoo, str(path))


def test_a_study_may_be_anyones_file(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(read_study("quick")[0]))
    assert find_study(str(path)) == path


def options(*overrides: str, nfe: str | None = None, study: str = "digits") -> argparse.Namespace:
    return argparse.Namespace(
        study=study, overrides=list(overrides), seeds=None, nfe=nfe, methods=None
    )


def test_an_option_that_measures_less_asks_less(zoo):
    whole, _, dropped = study_of(options(), zoo)
    assert dropped == 0
    some, _, dropped = study_of(options(nfe="4,8"), zoo)
    assert dropped == len(whole.hypotheses) - len(some.hypotheses) > 0
    assert all(o.nfe in (4, 8) for o in some.hypotheses)
    some, _, dropped = study_of(options("evaluation.samplers=[sde]"), zoo)
    assert {o.sampler for o in some.hypotheses} == {"sde"} and dropped > 0


def test_what_the_file_itself_cannot_answer_stays_an_error(tmp_path: Path, zoo):
    path = tmp_path / "mine.yaml"
    content = read_study("digits")[0]
    content["hypotheses"][0] |= {"metric": "digits-rigidity", "nfe": 3}
    path.write_text(yaml.safe_dump(content))
    for given in (options(study=str(path)), options(nfe="4", study=str(path))):
        with pytest.raises(ZooError, match=r"hypotheses\.0\.nfe: 3 is not of evaluation\.nfe"):
            study_of(given, zoo)
    with pytest.raises(ZooError, match=r"hypotheses\.0\.metric"):
        study_of(options("hypotheses.0.metric=digits-fdd"), zoo)
