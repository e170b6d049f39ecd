"""A role with `copy_of` has another role's weights of the moment at which it was copied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from salt_zoo.config.run import resolve
from salt_zoo.conformance import check_method
from salt_zoo.planning.plan import plan_run
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train
from tests.copies.plugin import Phases

ZOO = load_zoo(["tests.copies.plugin", "tests.blocks.plugin", "tests.sizes.plugin"])


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().clone().flatten() for p in network.parameters()])


@pytest.fixture
def watched(monkeypatch, tmp_path):
    """Trains, and returns the weights of each role as every update has found them."""

    def run(method: dict[str, Any], backbone: Any = "toy-blocks", **training: Any) -> Any:
        seen: list[dict[str, Tensor]] = []
        own = Phases.train

        def watch(self: Any, step: Any) -> Any:
            seen.append({name: weights(network) for name, network in step.networks.items()})
            return own(self, step)

        monkeypatch.setattr(Phases, "train", watch)
        content = {
            "method": {"name": "phases", **method},
            "backbone": backbone,
            "dataset": "toy-blocks" if backbone == "toy-blocks" else "digits",
            "training": {"updates": 4, "batch_size": 2, "trackers": [], **training},
        }
        return train(resolve(content, ZOO, "test"), tmp_path, ZOO, "cpu"), seen

    return run


def test_it_is_a_copy_of_its_moment(watched):
    _, seen = watched({"copied": [2]})
    first, second, third, fourth = seen
    assert torch.equal(first["teacher"], first["student"])
    assert torch.equal(second["teacher"], first["student"])
    assert torch.equal(third["teacher"], third["student"])
    assert torch.equal(fourth["teacher"], third["student"])
    assert not torch.equal(third["student"], first["student"])


def test_of_an_average(watched):
    _, seen = watched({"copied": [3], "average": True})
    assert torch.equal(seen[3]["teacher"], seen[3]["mean"])
    assert not torch.equal(seen[3]["mean"], seen[3]["student"])
    assert torch.equal(seen[2]["teacher"], seen[0]["student"])


def test_of_a_lora_it_has_adapters_of_its_own_on_the_same_weights(watched):
    small = {"name": "wan", "size": "test-small"}
    trainer, seen = watched({"copied": [2]}, small, lora={"student": {"rank": 2}}, updates=3)
    assert torch.equal(seen[2]["teacher"], seen[2]["student"])
    assert torch.equal(seen[1]["teacher"], seen[0]["student"])
    pairs = zip(*(trainer.networks[role].named_parameters() for role in ("student", "teacher")),
                strict=True)  # fmt: skip
    shared = {name.rpartition(".")[2]: one is other for (name, one), (_, other) in pairs}
    assert shared["weight"] and not shared["lora_A"] and not shared["lora_B"]


@pytest.mark.parametrize("average", [False, True])
def test_it_keeps_every_promise(average):
    """A run that resumes between two copies is bitwise the uninterrupted one; the plan is true."""
    method = {"name": "phases", "copied": [1, 3], "average": average}
    trainer = check_method(method, "toy-blocks", "toy-blocks", ZOO, updates=3)
    assert trainer.networks.roles["teacher"].start == "student"


def test_it_is_planned_as_what_it_copies():
    content = {
        "method": "phases",
        "backbone": {"name": "wan", "size": "test-small"},
        "dataset": "digits",
        "training": {"updates": 2, "batch_size": 2, "ema": None},
    }
    plan = plan_run(resolve(content, ZOO, "test"), ZOO, "cpu")
    assert plan.memory["weights teacher"] == plan.memory["weights student"]
    assert plan.states.keys() == {"student"}
    assert plan.passes["teacher"] == {"forward": 2.0, "backward": 0.0}
    assert plan.memory["gradients"] == plan.memory["weights student"]
