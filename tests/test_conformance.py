"""The checks for third parties find what they look for; our own metrics pass them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from salt_zoo.config.run import resolve
from salt_zoo.conformance import check_memory, check_method, check_metric
from salt_zoo.core.errors import MissingPackage
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.planning.plan import plan_run
from salt_zoo.plugin.foreign import ForeignError
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo.training.launch import train
from salt_zoo_self_forcing.cache import KVCache, Placement
from salt_zoo_self_forcing.masks import Span
from salt_zoo_self_forcing.memories.window import WindowMemory
from tests.blocks.plugin import Means, ToyBackbone, ToyNetwork
from tests.conftest import PROMPT


def toys() -> Zoo:
    return load_zoo(["tests.blocks.plugin"])


# --- methods ---


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


# --- memories ---


class Greedy(ToyNetwork):
    """A pass adds to what is remembered."""

    def forward(self, x: Tensor, t: Tensor, condition: Any, memory: Any = None) -> Tensor:
        v = super().forward(x, t, condition, memory)
        if memory is not None and memory.blocks:
            memory.blocks[-1] = memory.blocks[-1] + 0.1
        return v


class Shared(ToyNetwork):
    """What it remembers of one video is there in the next."""

    kept: Any = None

    def update_cache(self, x: Tensor, t: Tensor, condition: Any, memory: Any) -> None:
        super().update_cache(x, t, condition, memory)
        if self.kept is not None:
            memory.blocks[-1] = memory.blocks[-1] + self.kept
        self.kept = memory.blocks[-1].detach().mean()


class Spoilt(Means):
    def switch(self, recent: Any, update_cache: Any) -> None:
        self.blocks = [block * float("nan") for block in self.blocks]


MEMORIES = {
    Greedy: "a pass has changed what is remembered",
    Shared: "a stream differs from the video made at once",
}


def backbone_with(network: type[ToyNetwork], memory: type[Means] = Means) -> Zoo:
    class Backbone(ToyBackbone):
        def network(self, start: Any) -> Any:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return network()

        def blocks(self, network: Any = None) -> Any:
            return replace(super().blocks(), new_memory=lambda network, x: memory(len(x)))

    zoo = toys()
    zoo.backbones.add("broken", Backbone, "a broken backbone")
    return zoo


@pytest.mark.parametrize(("network", "said"), MEMORIES.items(), ids=lambda one: str(one)[:40])
def test_a_network_that_breaks_a_promise(network, said):
    with pytest.raises(AssertionError, match=said):
        check_memory("broken", "one", backbone_with(network))


class Wider(WindowMemory):
    """It declares a frame more than its cache shows."""

    def span(self, frames: int) -> Span:
        return Span(self.ring.size + 1, self.ring.sink)


class Overwriting(WindowMemory):
    """Its next block takes the slots of the sink, which it declares as seen."""

    def place(self, cache: KVCache, frames: int) -> Placement:
        placed = super().place(cache, frames)
        own = range(frames) if cache.count >= self.ring.size else placed.slots
        return Placement([*own], placed.used, placed.positions)


@pytest.mark.parametrize("memory", [Wider, Overwriting, WindowMemory])
def test_a_block_sees_what_its_memory_declares(memory):
    zoo = load_zoo()
    zoo.memories.add("mine", memory, "a window")
    part = {
        "name": "self-forcing",
        "size": "digits",
        "memory": {"name": "mine", "frames": 9, "sink": 3},
    }
    if memory is WindowMemory:
        check_memory(part, PROMPT, zoo)
        return
    with pytest.raises(AssertionError, match="block 3 of 12 frames does not see what the memory"):
        check_memory(part, PROMPT, zoo)


def test_a_memory_that_breaks_at_a_switch():
    with pytest.raises(AssertionError, match="makes values that are not finite"):
        check_memory("broken", "one", backbone_with(ToyNetwork, Spoilt))


# --- metrics ---


class Mean:
    direction = "higher"
    mean = True
    bounds = (0.0, 1.0)
    own_steps = None

    def __init__(self, config: Any, zoo: Any) -> None:
        self.calls = 0

    def measure(self, videos: Any) -> Tensor:
        return videos.pixels.flatten(1).mean(1)

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())


METRICS = {
    "a row depends on other videos": {
        "measure": lambda self, videos: videos.pixels.flatten(1).mean(1) - videos.pixels.mean()
    },
    "other rows when they are measured again": {
        "measure": lambda self, videos: torch.randn(len(videos.prompts))
    },
    "reduce depends on the order": {"reduce": lambda self, rows: float(rows[0])},
    "mean is declared": {"reduce": lambda self, rows: float(rows.median())},
    "reduce_many gives": {"reduce_many": lambda self, rows: 2 * rows.mean(dim=1)},
    "leave the bounds": {"bounds": (0.9, 1.0)},
    "direction is 'best'": {"direction": "best"},
    "must have a target": {"direction": "target"},
    "kind is 'vote'": {"kind": "vote"},
    "a metric of quality needs a direction": {"direction": "none", "kind": "quality"},
}


@pytest.mark.parametrize(("said", "changes"), METRICS.items(), ids=list(METRICS))
def test_a_metric_that_breaks_a_promise(said, changes):
    zoo = load_zoo()
    zoo.metrics.add("broken", type("Broken", (Mean,), changes), "a broken metric")
    with pytest.raises(AssertionError, match=said):
        check_metric("broken", "digits", zoo)


OURS = load_zoo()


@pytest.mark.parametrize("name", [metric.name for metric in OURS.metrics])
def test_our_own_metrics(name):
    try:
        rows = check_metric(name, "digits", OURS)
    except MissingPackage:
        pytest.skip("its package is not installed")
    assert len(rows) == 6


@pytest.mark.parametrize("name", ["semigroup-defect", "cache-distance"])
def test_our_own_metrics_with_rollouts(name):
    zoo = load_zoo(["tests.sizes.plugin"])
    backbone = {"name": "self-forcing", "size": "test-small"}
    rows = check_metric(name, "digits", zoo, backbone=backbone)
    assert rows.isfinite().all() and (rows > 0).all()
