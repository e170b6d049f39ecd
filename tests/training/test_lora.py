"""Roles trained as LoRAs on common frozen weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from salt_zoo.config.run import resolve
from salt_zoo.core.errors import ZooError
from salt_zoo.core.lora import (
    LoraConfig,
    add_lora,
    copy_sharing,
    lora_layers,
    merged,
    trainable,
    trainable_state,
)
from salt_zoo.training.launch import train
from tests.test_matrix import ZOO, content

RANK = 4
CELLS = [
    ("dmd", "wan", None),
    ("dmd", "self-forcing", "window"),
    ("consistency", "wan", None),
    ("consistency", "self-forcing", "full"),
]


def run_of(method: str, backbone: str, memory: str | None, **execution: Any) -> dict[str, Any]:
    run = content(method, backbone, memory)
    roles = ["student", "fake_score"] if method == "dmd" else ["student"]
    run["training"] |= {
        "lora": {role: {"rank": RANK, "alpha": 8} for role in roles},
        "ema": {"decay": 0.5, "start": 0},
    }
    if backbone == "self-forcing":
        run["backbone"]["initial"] = "teacher"
    return run | {"execution": execution}


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize(("method", "backbone", "memory"), CELLS)
def test_two_updates(method, backbone, memory, tmp_path):
    """Adapters alone change and are kept; the base is one; recomputation changes nothing."""
    run = run_of(method, backbone, memory)
    plain = train(resolve(run, ZOO, "test"), tmp_path / "plain", ZOO, "cpu")
    networks = plain.networks
    base = dict(networks["teacher"].named_parameters())
    for role in networks:
        own = dict(networks[role].named_parameters())
        adapters = {name for name in own if "lora_" in name}
        assert {id(own[name]) for name in own.keys() - adapters} == {id(p) for p in base.values()}
        assert bool(adapters) == (role != "teacher" and role in networks.saved_roles())
    for role, optimizers in networks.optimizers.items():
        stepped = {id(p) for one in optimizers for g in one.param_groups for p in g["params"]}
        assert stepped == {id(p) for _, p in trainable(networks[role])}
        for name, weight in trainable(networks[role]):
            assert not name.endswith("lora_B") or weight.any(), name
        kept = tmp_path / "plain" / "checkpoints" / "step-000002" / f"{role}.safetensors"
        assert kept.stat().st_size < 4 * 1.2 * sum(p.numel() for _, p in trainable(networks[role]))
    again = train(
        resolve(run | {"execution": {"gradient_checkpointing": True}}, ZOO, "test"),
        tmp_path / "checkpointing",
        ZOO,
        "cpu",
    )
    for role in networks.optimizers:
        for (name, one), (_, other) in zip(
            trainable(networks[role]), trainable(again.networks[role]), strict=True
        ):
            assert torch.allclose(one, other, atol=1e-6), name
