"""A training in a precision: the method is outside of autocast, and runs do not share it."""

from __future__ import annotations

import json
from typing import Any

import torch

from salt_zoo import hookimpl
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.plugin.manager import load_zoo


class ObservantConfig(StrictModel):
    learning_rate: float = 1e-3


class Observant:
    """A method that writes down which context it is trained in."""

    Config = ObservantConfig
    needs_data = False

    def __init__(self, config: Any, zoo: Any) -> None:
        self.seen: list[tuple[bool, torch.dtype]] = []

    def roles(self) -> dict[str, NetworkSpec]:
        return {
            "student": NetworkSpec("student", learning_rate=1e-3),
            "teacher": NetworkSpec("teacher"),
        }

    def update_order(self, index: int) -> list[str]:
        return ["student"]

    def train(self, step: Any) -> dict[str, torch.Tensor]:
        x = step.rng.randn(step.latent_shape, "x")
        found = {
            role: step.networks[role](x, torch.full((len(x),), 0.5), step.batch.condition)
            for role in ("teacher", "student")
        }
        self.seen.append((torch.is_autocast_enabled("cpu"), (x.flatten(1) @ x.flatten(1).T).dtype))
        assert {v.dtype for v in found.values()} == {torch.float32}
        loss = (found["student"] - found["teacher"] - 1).square().mean()
        step.backward(loss)
        return {"loss": loss.detach()}


class ObservantPlugin:
    @hookimpl
    def register(self, zoo: Any) -> None:
        zoo.methods.add("observant", Observant, "writes down its context")


def test_a_method_is_trained_outside_of_autocast(train, tmp_path):
    zoo = load_zoo(["tests.sizes.plugin"])
    zoo.add_plugin("observant", ObservantPlugin)
    trainer = train(tmp_path, zoo, method={"name": "observant"}, training=BF16)
    assert trainer.method.seen == [(False, torch.float32)] * 2
    dtypes = {role: {p.dtype for p in net.parameters()} for role, net in trainer.networks.items()}
    assert dtypes["student"] == dtypes["student_ema"] == {torch.float32}
    assert dtypes["teacher"] == {torch.float32, torch.bfloat16}  # held, but for its islands


BF16 = {"updates": 2, "precision": "bf16"}


def test_two_precisions_in_one_process(train, run_content, forked, tmp_path):
    """Runs of other precisions before one change nothing of it: bitwise a fresh process's."""
    fake_score = {"updates": 1, "learning_rate": 1e-3}
    method = {"name": "dmd", "learning_rate": 1e-3, "steps": 2, "fake_score": fake_score}

    def weights(run: Any) -> dict[str, torch.Tensor]:
        return run.networks["student"].state_dict()

    runs = [
        train(tmp_path / f"{n}-{p}", method=method, training={"updates": 2, "precision": p})
        for n, p in enumerate(("bf16", "fp32", "bf16"))
    ]
    first, exact, again = map(weights, runs)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], exact[name]) for name in first)
    path = tmp_path / "fresh.yaml"
    content = run_content(method=method, training={"updates": 2, "precision": "fp32"})
    path.write_text(json.dumps(content))
    command = ("-m", "salt_zoo", "train", path, "--out", tmp_path / "fresh", "--device", "cpu")
    ended = forked(*command, "-p", "tests.sizes.plugin")  # of a process that has trained nothing
    assert ended.code == 0, ended.err
    from safetensors.torch import load_file

    fresh = load_file(tmp_path / "fresh/checkpoints/step-000002/student.safetensors")
    assert all(torch.equal(fresh[name], exact[name]) for name in exact)
