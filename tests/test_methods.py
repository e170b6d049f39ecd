"""Whatever a plugin's method does wrong is one line that names it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from salt_zoo.config.parts import configure_part
from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.planning.check import check_training
from salt_zoo.plugin.isolation.checked_method import make_method
from salt_zoo.plugin.isolation.foreign import ForeignError, foreign
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo.plugin.registration.registry import NoOptions
from salt_zoo.training.launch import train

TITLE = "method 'broken' of plugin 'mine'"
STUDENT = NetworkSpec("student", learning_rate=1e-4)


class Sound:
    needs_data = False

    def __init__(self, config: Any, zoo: Any) -> None:
        pass

    def roles(self) -> Any:
        return {"student": STUDENT}

    def update_order(self, index: int) -> Any:
        return ["student"]

    def train(self, step: Any) -> Any:
        x = step.rng.randn(step.latent_shape, "noise")
        network = step.networks["student"]
        loss = network(x, torch.ones(len(x), x.shape[2]), step.batch.condition).square().mean()
        step.backward(loss)
        return {"loss": loss.detach()}


def Head(backbone: Any) -> nn.Module:
    return nn.Linear(backbone.latent_shape[0], 1)


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


def raising(error: BaseException) -> Any:
    def method(*arguments: Any) -> Any:
        raise error

    return method


def broken(zoo: Zoo, **parts: Any) -> Any:
    zoo.methods.plugin = "mine"
    zoo.methods.add("broken", type("Broken", (Sound,), parts), "a broken method")
    return make_method("broken", NoOptions(), zoo)


ROLES = [
    None,
    {},
    ["student"],
    {"teacher": NetworkSpec("teacher")},
    {"student": NetworkSpec("student")},
    {"student": "student"},
    {"student": STUDENT, 3: STUDENT},
    {"student": STUDENT, "../../evil": STUDENT},
    {"student": STUDENT, "student_ema": STUDENT},
    *({"student": STUDENT, name: STUDENT} for name in ("a/b", "", ".hidden", "optimizers", "ä")),
    {"student": NetworkSpec("nowhere", learning_rate=1e-4)},  # type: ignore[arg-type]
    {"student": NetworkSpec("student", learning_rate=-1.0)},
    {"student": NetworkSpec("student", learning_rate=float("nan"))},
    {"student": NetworkSpec("student", learning_rate=1e300)},
    {"student": NetworkSpec("student", learning_rate="fast")},  # type: ignore[arg-type]
    {"student": STUDENT, "mean": NetworkSpec("student", ema_of="nobody")},
    {"student": STUDENT, "mean": NetworkSpec("student", ema_of="student", decay=2.0)},
    {"student": NetworkSpec(factory=Head, learning_rate=1e-4)},
    {"student": STUDENT, "head": NetworkSpec(learning_rate=1e-4)},
    {"student": STUDENT, "head": NetworkSpec("student", factory=Head)},
    {"student": STUDENT, "head": NetworkSpec(factory=Head, ema_of="student")},
    {"student": STUDENT, "head": NetworkSpec(factory=3)},  # type: ignore[arg-type]
    {"student": STUDENT, "copy": NetworkSpec(copy_of="nobody")},
    {"student": STUDENT, "copy": NetworkSpec(copy_of="copy")},
    {"student": STUDENT, "copy": NetworkSpec("teacher", copy_of="student")},
    {"student": STUDENT, "copy": NetworkSpec(copy_of="student", ema_of="student")},
    {"student": STUDENT, "copy": NetworkSpec(copy_of="student", learning_rate=1e-4)},
    {"student": STUDENT, "copy": NetworkSpec(copy_of="student", factory=Head)},
    {"student": STUDENT, "copy": NetworkSpec(copy_of="teacher"), "teacher": NetworkSpec("teacher")},
]
ORDERS = [
    *(None, [], "student", ["nobody"], [3], ["student", "teacher"], ["teacher"], 3),
    *([("student", "copy")], ["copy"]),
    *([()], [("student", "student")], [("student", "teacher")], [("student", 3)]),
]


@pytest.mark.parametrize("roles", ROLES, ids=lambda roles: str(roles).split(" at 0x")[0])
def test_roles_of_a_wrong_form(roles: Any):
    method = broken(Zoo(), roles=lambda self: roles)
    with pytest.raises(ForeignError) as caught:
        method.roles()
    assert str(caught.value).startswith(f"{TITLE}: ")


@pytest.mark.parametrize("order", [*ORDERS, itertools.repeat("student")], ids=str)
def test_update_orders_of_a_wrong_form(order: Any):
    copy = NetworkSpec(copy_of="student")
    roles = {"student": STUDENT, "teacher": NetworkSpec("teacher"), "copy": copy}
    method = broken(Zoo(), roles=lambda self: roles, update_order=lambda self, step: order)
    with pytest.raises(ForeignError) as caught:
        method.update_order(0)
    assert str(caught.value).startswith(f"{TITLE}: update_order(0) ")


@pytest.mark.parametrize("order", [["student", ("head", "other")], [["head", "student"], "other"]])
def test_roles_that_are_trained_together(order: Any):
    heads = {name: NetworkSpec(factory=Head, learning_rate=1e-3) for name in ("head", "other")}
    method = broken(
        Zoo(),
        roles=lambda self: {"student": STUDENT, **heads},
        update_order=lambda self, step: order,
    )
    found = method.update_order(0)
    assert found == [tuple(one) if isinstance(one, list) else one for one in order]


FACTORIES = {
    "raises": raising(RuntimeError("two\nlines")),
    "exits": raising(SystemExit(0)),
    "no module": lambda backbone: 3,
    "a class": lambda backbone: nn.Linear,
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_a_factory_that_fails_is_named(factory: Any):
    roles = {"student": STUDENT, "head": NetworkSpec(factory=factory, learning_rate=1e-3)}
    method = broken(Zoo(), roles=lambda self: roles)
    with pytest.raises(ForeignError) as caught:
        method.roles()["head"].factory(None)
    line = str(caught.value)
    assert line.startswith(f"{TITLE}") and "factory of the role 'head'" in line
    assert "\n" not in line


ITSELF: dict[str, Any] = {}
ITSELF["itself"] = ITSELF
STATES = {
    "no mapping": [1],
    "itself": ITSELF,
    "an object": {"a": object()},
    "deep inside": {"a": [{"b": {1.0, 2.0}}]},
    "an odd key": {("a", "b"): 1},
    "a function": {"a": abs},
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_states_of_a_wrong_form(state: Any):
    load = {"load_state_dict": lambda self, state: None}
    method = broken(Zoo(), state_dict=lambda self: state, **load)
    with pytest.raises(ForeignError, match=rf"^{TITLE}: state_dict\(\)"):
        method.state_dict()


@pytest.mark.parametrize("part", ["roles", "update_order", "train"])
def test_an_async_method_is_refused_at_once(part: str):
    async def never_run(*arguments: Any) -> Any:
        return {}

    with pytest.raises(ForeignError, match=rf"^{TITLE}: its {part}\(\) is async"):
        broken(Zoo(), **{part: never_run})


def test_settings_that_an_update_changes_are_put_back_and_told_once(capsys):
    def meddle(self: Any, step: Any) -> Any:
        torch.set_grad_enabled(False)
        torch.set_default_device("meta")
        return {}

    method = broken(Zoo(), train=meddle)
    step = type("TrainStep", (), {"role": "student", "index": 4, "networks": {}})
    for _ in range(2):
        assert method.train(step) == {}
        assert torch.is_grad_enabled() and torch.ones(1).device.type == "cpu"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: {TITLE} changed torch's default device, torch's gradient mode in train(), "
        "which is undone"
    )


def test_options_that_cannot_be_written_are_refused():
    class Config(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        tool: object = object()

    zoo = Zoo()
    zoo.methods.plugin = "mine"
    zoo.methods.add("broken", type("Broken", (Sound,), {"Config": Config}), "a broken method")
    with pytest.raises(ForeignError, match=f"^{TITLE}: its options cannot be written"):
        configure_part(zoo.methods, {"name": "broken"}, zoo, "here")


def test_a_state_is_a_copy_of_plain_values():
    running = torch.ones(2, requires_grad=True)
    given = {"a": {"running": running, 3: (1, "x", None)}, "b": True}
    load = {"load_state_dict": lambda self, state: None}
    method = broken(Zoo(), state_dict=lambda self: given, **load)
    found = method.state_dict()
    assert found["a"][3] == [1, "x", None] and found["b"] is True
    assert torch.equal(found["a"]["running"], running) and not found["a"]["running"].requires_grad
    with torch.no_grad():
        running.zero_()
    assert found["a"]["running"].sum() == 2
    assert broken(Zoo()).state_dict() == {}


def test_a_state_for_a_method_without_one():
    with pytest.raises(ForeignError, match="the checkpoint holds its state"):
        broken(Zoo()).load_state_dict({"a": 1})


def endless() -> Iterator[str]:
    yield "student"
    raise RuntimeError("half way")


BREACHES: dict[str, dict[str, Any]] = {
    "an order without an end": {"update_order": lambda self, step: itertools.repeat("student")},
    "an unknown role": {"update_order": lambda self, step: ["nobody"]},
    "an exit": {"train": lambda self, step: sys.exit(0)},
    "no roles": {"roles": lambda self: {}},
}


@pytest.mark.parametrize("parts", BREACHES.values(), ids=BREACHES)
def test_what_is_checked_before_a_run_leaves_breaches_to_the_training(toys: Zoo, parts: Any):
    """One such arm costs a study no more than its own row."""
    name = f"broken-{len(list(toys.methods))}"
    toys.methods.add(name, type("Broken", (Sound,), parts), "a broken method")
    content = {"method": name, "backbone": "toy-blocks", "dataset": "toy-blocks"}
    check_training(resolve(content, toys, "test"), toys, "test")


class Odd(BaseException):
    """As asynchronous libraries have them."""


ERRORS = [SystemExit(0), StopIteration("x"), Mute(), MemoryError(), RecursionError("deep"), Odd()]


@pytest.mark.parametrize("error", [*ERRORS, RuntimeError("two\nlines" + "x" * 5000)], ids=repr)
@pytest.mark.parametrize("part", ["roles", "update_order", "train"])
def test_any_exception_is_one_line(part: str, error: BaseException):
    method = broken(Zoo(), **{part: raising(error)})
    step = type("TrainStep", (), {"role": "student", "index": 4, "networks": {}})
    with pytest.raises(ForeignError) as caught:
        method.roles() if part == "roles" else getattr(method, part)(step if part == "train" else 0)
    line = str(caught.value)
    assert line.startswith(TITLE)
    assert "\n" not in line
    assert len(line) < 500
    assert type(error).__name__ in line


def test_a_generator_that_fails_half_way_is_named():
    method = broken(Zoo(), update_order=lambda self, step: endless())
    with pytest.raises(ForeignError, match="half way"):
        method.update_order(0)


def test_what_is_meant_for_people_or_is_theirs_goes_through():
    with pytest.raises(ZooError, match=r"^mine$"), foreign("a part"):
        raise ZooError("mine")
    with pytest.raises(KeyboardInterrupt), foreign("a part"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("wanted", ["needs_data", "roles", "update_order", "train"])
def test_what_a_method_must_have(wanted: str):
    class Without(Sound):
        def __getattribute__(self, name: str) -> Any:
            if name == wanted:
                raise AttributeError(name)
            return super().__getattribute__(name)

    zoo = Zoo()
    zoo.methods.add("without", Without, "it lacks something")
    with pytest.raises(ForeignError, match=f"lacks '{wanted}'"):
        make_method("without", NoOptions(), zoo)


def returns(made: Any) -> Any:
    def method(self: Sound, step: Any) -> Any:
        Sound.train(self, step)
        return made

    return method


LOGS = [
    None,
    [1.0],
    {"loss": 1.0},
    {3: torch.zeros(())},
    {"loss": torch.zeros(3)},
    {"loss": torch.zeros(0)},
    {"loss": torch.zeros((), device="meta")},
    {"loss": torch.zeros((), dtype=torch.complex64)},
]


@pytest.fixture(scope="module")
def toys() -> Zoo:
    return load_zoo(["tests.blocks.plugin"])


def run(toys: Zoo, folder: Any, method: Any) -> None:
    name = f"broken-{len(list(toys.methods))}"
    toys.methods.plugin = "mine"
    toys.methods.add(name, type("Broken", (Sound,), {"train": method}), "a broken method")
    content = {
        "method": name,
        "backbone": "toy-blocks",
        "dataset": "toy-blocks",
        "training": {"updates": 2, "batch_size": 2, "trackers": []},
    }
    with pytest.raises(ForeignError, match=rf"^method '{name}' of plugin 'mine'"):
        train(resolve(content, toys, "test"), folder, toys, "cpu")


@pytest.mark.parametrize("logs", LOGS, ids=str)
def test_logs_of_a_wrong_form(toys: Zoo, tmp_path: Any, logs: Any):
    run(toys, tmp_path, returns(logs))


TRAINS = {
    "it never goes backward": lambda self, step: {},
    "its loss depends on nothing": lambda self, step: step.backward(torch.tensor(1.0)) or {},
    "its loss depends on another tensor": lambda self, step: (
        step.backward(torch.ones((), requires_grad=True)) or {}
    ),
    "its loss is no scalar": lambda self, step: (
        step.backward(torch.ones(3, requires_grad=True)) or {}
    ),
    "its loss is no tensor": lambda self, step: step.backward(None) or {},
    "it exits": lambda self, step: sys.exit(0),
}


@pytest.mark.parametrize("train", TRAINS.values(), ids=TRAINS)
def test_a_turn_that_trains_nothing(toys: Zoo, tmp_path: Any, train: Any):
    run(toys, tmp_path, train)
    assert not (tmp_path / "checkpoints").exists()
