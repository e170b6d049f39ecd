"""Arms whose code raises what ends a program: each costs its own arm, and Ctrl-C still ends all."""

from __future__ import annotations

import os
import signal

import pytest
import yaml

from benchmarks.runner.arms import plan_runs
from benchmarks.runner.planning.plan import print_plan
from benchmarks.study.schema import load_study
from salt_zoo import hookimpl
from salt_zoo.cli import guarded
from salt_zoo.config.run import resolve
from salt_zoo.core.base.interrupts import Stopped
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.io.signals import signals_clean_up
from salt_zoo.plugin.isolation.foreign import ForeignError
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train

STUDY = """
name: interrupts
title: Interrupts
base: {backbone: {name: wan, size: test-tiny}, dataset: digits}
arms:
  good: {method: consistency, training: {updates: 2, batch_size: 2}}
  bad: {method: interrupts, training: {updates: 2, batch_size: 2}}
evaluation: {nfe: [1], metrics: [digits-rigidity]}
"""

PLACES = ("__init__", "roles", "update_order", "train")


def leave() -> None:
    raise SystemExit(0)


def interrupt() -> None:
    raise KeyboardInterrupt


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def zoo_with(place: str, does):
    """A zoo with a method that does something in one of its functions."""

    class Interrupts:
        needs_data = False

        def __init__(self, config, zoo):
            self.at("__init__")

        def at(self, name):
            if name == place:
                does()

        def roles(self):
            self.at("roles")
            return {"student": NetworkSpec("student", learning_rate=1e-4)}

        def update_order(self, index):
            self.at("update_order")
            return ["student"]

        def train(self, step):
            self.at("train")
            return {}

    class Plugin:
        @hookimpl
        def register(self, zoo):
            zoo.methods.add("interrupts", Interrupts, "a method that ends the program")

    zoo = load_zoo(["tests.sizes.plugin"])
    zoo.add_plugin("interrupting", Plugin)
    return zoo


@pytest.mark.parametrize("does", [leave, interrupt])
@pytest.mark.parametrize("place", PLACES)
def test_a_study_is_planned_beside_an_arm_that_would_end_it(place, does):
    study = load_study(yaml.safe_load(STUDY), "here")
    with signals_clean_up():
        runs, broken = plan_runs(study, zoo_with(place, does), "here")
    assert [*runs, *broken] == ["good", "bad"] and bool(broken) == (place == "__init__")


def test_an_arm_that_cannot_be_made_is_left_out(capsys):
    zoo = zoo_with("__init__", interrupt)
    with signals_clean_up():
        kept, broken = plan_runs(load_study(yaml.safe_load(STUDY), "here"), zoo, "here")
        alone = yaml.safe_load(STUDY)
        del alone["arms"]["good"]
        with pytest.raises(ForeignError, match="cannot be made"):
            plan_runs(load_study(alone, "here"), zoo, "here")
    assert list(kept) == ["good"]
    assert broken["bad"].startswith("method 'interrupts' of plugin 'interrupting': cannot be made")
    assert capsys.readouterr().err == (
        f"warning: arm 'bad': {broken['bad']}; the study continues without it\n"
    )


def test_a_printed_plan_is_of_the_other_arms(capsys):
    study, zoo = load_study(yaml.safe_load(STUDY), "here"), zoo_with("train", interrupt)
    with signals_clean_up():
        assert not print_plan(study, plan_runs(study, zoo, "here")[0], zoo, "cpu")
    printed = capsys.readouterr()
    assert "good" in printed.out and "bad" not in printed.out
    (line,) = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    assert "arm 'bad' cannot be planned: method 'interrupts' of plugin" in line


@pytest.mark.parametrize("does", [leave, interrupt])
@pytest.mark.parametrize("place", ["__init__", "train"])
def test_equal_budgets_leave_out_who_has_no_cost(place, does, capsys):
    """A run on its own updates would be compared all the same."""
    content = yaml.safe_load(STUDY) | {"match": "compute", "budget_of": "good"}
    with signals_clean_up():
        runs, broken = plan_runs(load_study(content, "here"), zoo_with(place, does), "here")
    assert list(runs) == ["good"]
    assert broken["bad"].startswith("method 'interrupts' of plugin 'interrupting'")
    assert "arm 'bad': method 'interrupts' of plugin" in capsys.readouterr().err


@pytest.mark.parametrize(
    "place, said", [("__init__", "budget_of: 'bad' is broken"), ("train", "method 'interrupts'")]
)
def test_equal_budgets_need_the_cost_that_all_get(place, said):
    content = yaml.safe_load(STUDY) | {"match": "compute", "budget_of": "bad"}
    with signals_clean_up(), pytest.raises(ForeignError, match=said):
        plan_runs(load_study(content, "here"), zoo_with(place, interrupt), "here")


@pytest.mark.parametrize("place", PLACES)
def test_ctrl_c_ends_the_planning(place):
    study = load_study(yaml.safe_load(STUDY), "here")
    with signals_clean_up(), pytest.raises(Stopped):
        plan_runs(study, zoo_with(place, press), "here")


def test_a_training_names_who_interrupts_it(run_content, tmp_path, capsys):
    def run(does) -> int:
        zoo = zoo_with("train", does)
        content = run_content(method={"name": "interrupts"})
        del content["method"]["learning_rate"]
        resolved = resolve(content, zoo, "here")
        return guarded(lambda: train(resolved, tmp_path / "run", zoo, "cpu") and 0)

    assert run(interrupt) == ForeignError.exit_code
    assert capsys.readouterr().err == (
        "error: method 'interrupts' of plugin 'interrupting', update of 'student' in step 1: "
        "KeyboardInterrupt: no reason given\n"
    )
    assert run(press) == 130
    assert "interrupted" in capsys.readouterr().err
