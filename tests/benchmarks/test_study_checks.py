"""A study is checked where it is read, before anything is made on disk."""

from __future__ import annotations

import copy
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.run import main
from benchmarks.runner.arms import plan_runs
from benchmarks.study.entries.baselines import BASELINES
from benchmarks.study.schema import load_study
from salt_zoo.core.base.errors import ZooError

STUDY = {
    "name": "tiny",
    "title": "Tiny",
    "base": {
        "backbone": {"name": "wan", "size": "digits"},
        "dataset": "digits",
        "training": {"updates": 2, "batch_size": 2, "trackers": []},
    },
    "arms": {"dmd": {"method": "dmd"}, "cd": {"method": "consistency"}},
    "evaluation": {"prompts": 4, "nfe": [1, 2], "metrics": ["digits-rigidity"]},
}
ONE = {"a": "cd", "b": "dmd", "metric": "digits-rigidity", "nfe": 1}


def changed(**keys):
    content = copy.deepcopy(STUDY)
    for path, value in keys.items():
        place = content
        *groups, last = path.split("__")
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return content


def arm(label):
    return changed(arms={label: {"method": "dmd"}})


@pytest.mark.parametrize(
    "label",
    ["", ".", "..", "../../x", "a/b", "/abs", "a\\b", "a\0b", "a\nb", " a", "a ", "-x", "a.", "a:b",
     "\u202ex", "é", "a" * 101, "~", "$HOME", "a*"],
)  # fmt: skip
def test_names_that_are_no_folders(label):
    for content, key in ((arm(label), "arms"), (changed(name=label), "name")):
        with pytest.raises(ZooError, match=rf"^s: {key}: .*folder's name") as raised:
            load_study(content, "s")
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@given(st.text(string.ascii_letters + string.digits + "-_.+", min_size=1, max_size=20))
def test_a_label_that_is_taken_is_one_folder_below_its_own(label):
    try:
        load_study(arm(label), "s")
    except ZooError:
        return
    assert label.strip(". -") and "/" not in label and label.casefold() not in BASELINES


@pytest.mark.parametrize("label", [*BASELINES, "Teacher-Naive", "REAL"])
def test_baselines_keep_their_names(label):
    with pytest.raises(ZooError, match="belongs to a baseline"):
        load_study(arm(label), "s")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(arms={"a": {"method": "dmd"}, "A": {"method": "dmd"}}), "'A' and 'a' are one"),
        (changed(arms__dmd__seeds=[]), "arms.dmd.seeds"),
        (changed(arms__dmd__seeds=[1, 1]), "arms.dmd.seeds: 1 is listed twice"),
        (changed(arms__dmd__seeds=None), "arms.dmd.seeds"),
        (changed(arms__dmd__seed=3), "arms.dmd.seed: write seeds, a list"),
        (changed(arms__dmd__evaluation=None), "arms.dmd.evaluation: should be a group of keys"),
        (changed(arms__dmd__evaluation=[]), "arms.dmd.evaluation: should be a group of keys"),
        (changed(seeds=[True]), "seeds.0: should be a number"),
        (changed(seeds=[10**30]), "seeds.0"),
        (changed(evaluation__metrics=[]), "evaluation.metrics"),
        (changed(evaluation__nfe=[]), "evaluation.nfe"),
        (changed(evaluation__nfe=[10**9]), "evaluation.nfe.0"),
        (changed(evaluation__samplers=[]), "evaluation.samplers"),
        (changed(evaluation__long={"metrics": []}), "evaluation.long.metrics"),
        (changed(evaluation__prompts=10**9), "evaluation.prompts"),
        (changed(evaluation__batch_size=10**30), "evaluation.batch_size"),
        (changed(workers=10**6), "workers"),
        (changed(title="x" * 501), "title: should have at most 500"),
        (changed(title="a\x1b[31m"), "title: has the control character"),
        (changed(description="a\ud800"), "description: should be a valid string"),
        (changed(hypotheses=[{**ONE, "claim": "a\x07"}]), "hypotheses.0.claim: has the control"),
        (changed(hypotheses=[{**ONE, "a": "dmd"}]), "hypotheses.0: a and b are both 'dmd'"),
        (changed(arms__dmd=None), "arms.dmd: should be a group of keys"),
    ],
)
def test_what_is_refused_when_it_is_read(content, said):
    with pytest.raises(ZooError) as raised:
        load_study(content, "s")
    assert str(raised.value).startswith("s: ") and said in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            changed(hypotheses=[{**ONE, "b": "initial-naive"}]),
            "hypotheses.0: there is no row 'initial-n",
        ),
        (
            changed(base__training__optimizers={"studend": {}}),
            "optimizers.studend: the method trai",
        ),
        (changed(base__execution__micro_batch=3), "cannot be split over 1 process in passes of 3"),
        (changed(arms__dmd__method="cda"), "arms.dmd: cache-alignment: this backbone is bidirect"),
        (changed(base__quality={"every": 1}), "metrics: name at least one"),
        (changed(base__quality={"every": 1, "metrics": ["no"]}), "unknown metric 'no'"),
        (
            changed(arms__dmd__method={"name": "dmd", "objectives": {"self-consistency": "off"}}),
            "self-consistency: should be a group of keys, not 'off'; to switch it off, write null",
        ),
        (
            changed(
                arms__dmd__method={"name": "dmd", "objectives": {"distribution-matching": None}}
            ),
            "arms.dmd: method.objectives: every term is switched off",
        ),
    ],
)
def test_what_cannot_run_is_refused_by_the_plan(content, said, zoo):
    with pytest.raises(ZooError) as raised:
        plan_runs(load_study(content, "s"), zoo, "s")
    assert str(raised.value).startswith("s: ") and said in str(raised.value)


def test_a_short_form_of_the_base_takes_an_arms_keys(zoo):
    content = changed(base__backbone="self-forcing")
    content["arms"] = {"window": {"method": "dmd", "backbone": {"memory": "window"}}}
    run = plan_runs(load_study(content, "s"), zoo, "s")[0]["window"]
    assert run.config.backbone == {"name": "self-forcing", "memory": "window"}


@pytest.mark.parametrize(
    "options",
    [["--out", ""], ["--seeds", "9" * 13], ["--nfe", "9" * 5000], ["--nfe", ","], ["--what"],
     ["x" * 5000], ["--set", "arms.dmd=&a [*a]"], ["--set", "\x1b[31m=1"],
     ["--methods", "\x9b31m"], ["--methods", ""], ["--methods", ","], ["--nfe", ""]],
)  # fmt: skip
def test_options_that_cannot_be_are_one_visible_line(options, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = [] if options[0].startswith("x") else ["quick"]
    try:
        code = main([*study, *options])
    except SystemExit as error:
        code = error.code
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and line.startswith("error: ") and line.isprintable() and len(line) < 1000
    assert not list(tmp_path.iterdir())


def test_seeds_of_an_arm_are_numbers():
    content = copy.deepcopy(STUDY)
    content["arms"]["dmd"]["seeds"] = [3, 4]
    assert load_study(content, "s").seeds_of("dmd") == [3, 4]


def test_a_plan_holds_for_a_run_that_lacks_data(capsys, one_zoo):
    """Of `wan_t2v` as it is: its consistency arm wants latents."""
    code = main(["wan_t2v", "--dry-run", "--methods", "consistency"])
    told = capsys.readouterr()
    assert code == 0 and "consistency" in told.out
    (line,) = [x for x in told.err.splitlines() if x.startswith("warning: ")]
    assert "the run would be rejected" in line and "dataset.latents" in line
