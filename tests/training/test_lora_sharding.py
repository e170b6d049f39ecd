"""LoRAs on one base that is sharded over two real processes."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core.networks.lora import trainable
from salt_zoo.training.launch import train
from tests.test_matrix import ZOO
from tests.training.small_runs import with_lora

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("parts", "names"),
    [({}, ["sharded", "resumed"]), ({"teacher": None}, ["one-base"])],
    ids=["a wider teacher", "a teacher on the base"],
)
def test_two_processes_are_one(parts, names, sharded_loras, tmp_path):
    """Logs, weights, a resumed run, and a base that a process has half of, once, also where it is
    the teacher. That of a causal network is in `test_sequence.py`."""
    one = train(resolve(with_lora("wan", **parts), ZOO, "test"), tmp_path, ZOO, "cpu")
    of = {role: {*one.networks[role].parameters()} for role in one.networks}
    assert of["student"] & of["fake_score"]
    assert bool(of["student"] & of["teacher"]) == (names == ["one-base"])
    for folder in (sharded_loras / name for name in names):
        state = json.loads((folder / "checkpoints" / "step-000002" / "state.json").read_text())
        assert len(one.history) == len(state["history"]) == 2
        for logs, other in zip(one.history, state["history"], strict=True):
            for key in logs.keys() - {"seconds"}:
                assert other[key] == pytest.approx(logs[key], rel=1e-3, abs=1e-6), key
        found = safetensors.torch.load_file(folder / "student.safetensors")
        student = one.networks["student_ema"].state_dict()
        assert found.keys() == student.keys()
        adapters = [name for name, _ in trainable(one.networks["student_ema"])]
        assert all(torch.equal(found[n], student[n]) for n in found.keys() - set(adapters))
        off = torch.cat([(found[name] - student[name]).abs().flatten() for name in adapters])
        assert off.mean() < 1e-6
        weights = {
            id(p): p.numel() * p.element_size()
            for role in one.networks
            for p in one.networks[role].parameters()
        }
        for rank in (0, 1):
            held = json.loads((folder / f"held-{rank}.json").read_text())
            assert held == pytest.approx(sum(weights.values()) / 2, rel=0.1)
