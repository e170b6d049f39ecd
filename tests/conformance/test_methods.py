"""`check_method` finds what it looks for."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from salt_zoo.config.run import resolve
from salt_zoo.conformance import check_method
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.planning.plan import plan_run
from salt_zoo.plugin.isolation.foreign import ForeignError
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo.training.launch import train


def toys() -> Zoo:
    return load_zoo(["tests.blocks.plugin"])


class Method:
    needs_data = False

    def __init__(self, config: Any, zoo: Any) -> None:
        self.calls = 0

    def roles(self) -> Any:
        return {
            "student": NetworkSpec("student", learning_rate=1e-2),
            "teacher": NetworkSpec("teacher"),
        }

    def update_order(self, index: int) -> Any:
        return ["student"]

    def train(self, step: Any) -> Any:
        self.calls += 1
        x = step.rng.randn(step.latent_shape, "noise")
        loss = self.loss(step, x, torch.ones(len(x)))
        step.backward(loss)
        return {"loss": loss}

    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        return step.networks["student"](x, t, step.batch.condition).square().mean()


class Unkeyed(Method):
    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        return super().loss(step, torch.randn_like(x), t)


class First(Method):
    """What is not keyed is drawn in the first update alone."""

    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        return super().loss(step, torch.randn_like(x) if step.index == 0 else x, t)


class Counting(Method):
    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        return super().loss(step, self.calls * x, t)


class Meddling(Method):
    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            step.networks["teacher"].gain.add_(1)
        return super().loss(step, x, t)


class Loading(Meddling):
    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        step.networks["teacher"].load_state_dict(step.networks["student"].state_dict())
        return Method.loss(self, step, x, t)


class Copying(Method):
    """It passes a copy of its own, which has the hooks of the original."""

    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        mine = copy.deepcopy(step.networks["student"]).requires_grad_(False)
        return super().loss(step, x, t) + mine(x, t, step.batch.condition).mean()


class Idle(Method):
    def roles(self) -> Any:
        return super().roles() | {"critic": NetworkSpec("student", learning_rate=1e-2)}


class Drawing(Method):
    """A head whose weights nothing seeds."""

    def roles(self) -> Any:
        return super().roles() | {"head": NetworkSpec(factory=self.head, learning_rate=1e-2)}

    def head(self, backbone: Any) -> nn.Module:
        head = nn.Linear(2, 1)
        nn.init.constant_(head.weight, random.SystemRandom().random())
        return head

    def update_order(self, index: int) -> Any:
        return ["student", "head"]

    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        if step.role == "head":
            return step.networks["head"](x.new_ones(1, 2)).square().mean()
        return super().loss(step, x, t)


class Looking(Method):
    """How often it evaluates the teacher depends on values, which no plan has."""

    def loss(self, step: Any, x: Tensor, t: Tensor) -> Tensor:
        found = super().loss(step, x, t)
        if step.networks["student"].gain.std() > 0:
            step.networks["teacher"](x, t, step.batch.condition)
        return found


METHODS = {
    Unkeyed: "networks.student.* of a resumed run is not that of an uninterrupted one",
    Counting: "of a resumed run is not that of an uninterrupted one",
    Idle: "the role 'critic' has a learning rate, and update_order names it in none of 2 updates",
    Drawing: "networks.head.weight of a resumed run is not that of an uninterrupted one",
    First: "of a resumed run is not that of an uninterrupted one",
    Looking: "role 'teacher': 4 passes forward have happened, 0 are planned",
}


@pytest.mark.parametrize(("method", "said"), METHODS.items(), ids=lambda one: str(one)[:40])
def test_a_method_that_breaks_a_promise(method, said):
    zoo = toys()
    zoo.methods.add("broken", method, "a broken method")
    with pytest.raises(AssertionError, match=said):
        check_method("broken", "toy-blocks", "toy-blocks", zoo)


FORBIDDEN = {
    Meddling: "changed the weights of 'teacher'",
    Loading: "changed the weights of 'teacher'",
    Copying: "role 'student': a copy of its network was passed",
}


@pytest.mark.parametrize(("method", "said"), FORBIDDEN.items(), ids=lambda one: str(one)[:40])
def test_weights_are_changed_by_optimizers_alone(method, said, tmp_path):
    """Training, plan and check refuse the same, and all say how it is done."""
    zoo = toys()
    zoo.methods.add("broken", method, "a broken method")
    content = {
        "method": "broken",
        "backbone": "toy-blocks",
        "dataset": "toy-blocks",
        "training": {"updates": 1, "batch_size": 2, "trackers": []},
    }
    run = resolve(content, zoo, "test")
    refused = {
        "check": lambda: check_method("broken", "toy-blocks", "toy-blocks", zoo),
        "train": lambda: train(run, tmp_path, zoo, "cpu"),
        "plan": lambda: plan_run(run, zoo),
    }
    for name, call in refused.items():
        with pytest.raises(ForeignError, match="method 'broken'") as caught:
            call()
        line = str(caught.value)
        assert "NetworkSpec(copy_of=...)" in line
        # which network it is, a plan does not know
        assert (said if method is Copying or name != "plan" else "writes to the weights") in line


def test_a_sound_method():
    zoo = toys()
    zoo.methods.add("sound", Method, "a sound method")
    assert check_method("sound", "toy-blocks", "toy-blocks", zoo).history
