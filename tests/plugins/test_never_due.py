"""A term of the loss that a training would never use is said in one line when it begins."""

from __future__ import annotations

import pytest

from salt_zoo.config.run import resolve
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train
from salt_zoo_dmd.never_due import _say

MIXED = {8: 0.4, 4: 0.4, 2: 0.2}


@pytest.fixture(scope="module")
def toys():
    return load_zoo(["tests.blocks.plugin"])


@pytest.fixture
def warnings(toys, tmp_path, capsys):
    """Trains for two updates and returns the warnings."""
    _say.cache_clear()

    def run(method, again=1):
        content = {
            "method": {"fake_score": {"updates": 1}, **method},
            "backbone": "toy-blocks",
            "dataset": "toy-blocks",
            "training": {"updates": 2, "batch_size": 2, "trackers": []},
        }
        for step in range(again):
            train(resolve(content, toys, "test"), tmp_path / str(step), toys, "cpu")
        return capsys.readouterr().err.splitlines()

    return run


def cda(**alignment):
    return {"name": "cda", "objectives": {"cache-alignment": alignment}}


@pytest.mark.parametrize("start", [None, 2])
def test_a_start_after_the_end_is_one_line_with_both_keys(warnings, start):
    """Also that of the default, which a short training falls short of."""
    (line,) = warnings(cda(**({} if start is None else {"start": start})))
    assert line.startswith("warning: cache-alignment is never used in this training: ")
    assert f"method.objectives.cache-alignment.start is {start or 200}" in line
    assert "training.updates 2" in line


def test_the_last_update_is_enough(warnings):
    assert warnings(cda(start=1)) == []


@pytest.mark.parametrize("off", [None, {"weight": 0}])
def test_what_is_switched_off_is_not_missed(warnings, off):
    objectives = {"cache-alignment": off, "self-consistency": off}
    assert warnings({"name": "cda", "objectives": objectives, "steps": 4}) == []


def test_it_is_said_once_for_many_arms_and_seeds(warnings):
    assert len(warnings(cda(), again=3)) == 1


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (
            {"name": "sc-dmd", "steps": 4},
            "self-consistency.steps is 8 and method.steps has no such list, only 4",
        ),
        (
            {"name": "sc-dmd", "steps": {8: 0.0, 4: 1.0}},
            "method.steps has no such list, only 4",
        ),
        (
            {**cda(start=0), "steps": 8},
            "cache-alignment.reference aligns lists of 2, 4 steps and method.steps has 8",
        ),
    ],
)
def test_lists_that_are_never_drawn(warnings, method, said):
    (line,) = warnings(method)
    assert said in line


@pytest.mark.parametrize("method", [{"name": "sc-dmd"}, {"name": "sc-dmd", "steps": MIXED}])
def test_what_may_be_drawn_is_not_warned_of(warnings, method):
    assert warnings(method) == []
