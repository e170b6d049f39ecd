"""Roles trained as LoRAs on common frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.lora import (
    LoraConfig,
    add_lora,
    copy_sharing,
    lora_layers,
    merged,
    trainable,
    trainable_state,
)
from salt_zoo.planning.check import check_training
from salt_zoo.planning.plan import GIB, plan_run
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
    run["backbone"]["size"] = "test-tiny"
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


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Callable[..., Any]:
    """The trainer of a cell, which is trained once; not to be changed."""
    made: dict[tuple[Any, ...], Any] = {}

    def go(*cell: Any) -> Any:
        if cell not in made:
            folder = tmp_path_factory.mktemp("plain")
            made[cell] = train(resolve(run_of(*cell), ZOO, "test"), folder, ZOO, "cpu")
        return made[cell]

    return go


@pytest.mark.parametrize(("method", "backbone", "memory"), CELLS)
def test_two_updates(method, backbone, memory, plain, tmp_path):
    """Adapters alone change and are kept; the base is one; recomputation changes nothing."""
    run = run_of(method, backbone, memory)
    trainer = plain(method, backbone, memory)
    networks = trainer.networks
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
        kept = trainer.folder / "checkpoints" / "step-000002" / f"{role}.safetensors"
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


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    run = run_of(*CELLS[1])
    run["training"] |= {"checkpoint_every": 1}
    whole = train(resolve(run, ZOO, "test"), tmp_path / "whole", ZOO, "cpu")
    short = copy.deepcopy(run)
    short["training"]["updates"] = 1
    train(resolve(short, ZOO, "test"), tmp_path / "parts", ZOO, "cpu")
    parts = train(resolve(run, ZOO, "test"), tmp_path / "parts", ZOO, "cpu")
    for role in whole.networks:
        one, other = (t.networks[role].state_dict() for t in (whole, parts))
        assert all(torch.equal(one[name], other[name]) for name in one), role


def test_it_starts_exactly_at_its_base_and_merges():
    """Outputs, gradients of a pass after other networks' passes, and the merged network."""
    part = {"name": "self-forcing", "size": "test-small", "memory": {"name": "full"}}
    resolved = resolve(content("dmd", "self-forcing", "full"), ZOO, "test")
    backbone = ZOO.backbones.create(part["name"], resolved.backbone, ZOO)
    base = backbone.network("student").requires_grad_(False)
    student, fake = copy_sharing(base), copy_sharing(base)
    for network in (student, fake):
        add_lora(network, LoraConfig(rank=RANK, alpha=2), "training.lora.student")
    x, t = torch.randn(2, *backbone.latent_shape), torch.tensor([0.9, 0.4])
    condition = backbone.encode_prompts(["a 7 moving left slowly", "a 1 moving up quickly"])
    with torch.no_grad():
        assert torch.equal(student(x, t, condition), base(x, t, condition))
    for weight in (w for n in (student, fake) for _, w in trainable(n)):
        nn.init.normal_(weight, std=0.1)
    alone = copy.deepcopy(student)  # shares nothing
    found = []
    for network, others in ((alone, ()), (student, (base, fake))):
        network.enable_gradient_checkpointing()
        loss = network(x, t, condition).square().mean()
        with torch.no_grad():
            for other in others:
                other(x, t, condition)
        loss.backward()
        found.append([w.grad for _, w in trainable(network)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert all(g.any() for g in found[0])
    assert all(p.grad is None for p in base.parameters())
    with torch.no_grad():
        one, other = merged(student)(x, t, condition), student(x, t, condition)
    assert not lora_layers(merged(student))
    assert torch.linalg.norm(one - other) < 1e-5 * torch.linalg.norm(other)
    assert not torch.allclose(other, base(x, t, condition), atol=1e-2)


def test_a_layer_in_closed_form():
    layer = nn.Sequential(nn.Linear(5, 3)).double()
    add_lora(layer, LoraConfig(rank=2, alpha=3, targets=["0"]), "here")
    layer.double()
    ((_, made),) = lora_layers(layer).items()
    nn.init.normal_(made.lora_B)
    x = torch.randn(4, 5, dtype=torch.float64)
    weight = made.weight + 3 / 2 * made.lora_B @ made.lora_A
    assert torch.allclose(layer(x), x @ weight.T + made.bias, atol=1e-12)
    assert list(trainable_state(layer)) == ["0.lora_A", "0.lora_B"]


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"studnt": {}}, "training.lora.studnt: .* did you mean 'student'"),
        ({"teacher": {}}, "training.lora.teacher: the method trains no network of that name"),
        ({"student": {"rank": 999}}, "training.lora.student.rank: 999 is more than the layer"),
        (
            {"student": {"rank": 2, "targets": ["to_x"]}},
            r"training.lora.student.targets: no linear layer's name ends in 'to_x'.*attn1.to_q",
        ),
    ],
)
def test_wrong_configurations(lora, said, tmp_path):
    run = run_of(*CELLS[0])
    run["training"]["lora"] = lora
    with pytest.raises(ZooError, match=said):
        train(resolve(run, ZOO, "test"), tmp_path, ZOO, "cpu")


def test_without_a_lora_a_run_is_the_one_it_was():
    from salt_zoo.config.identity import identity

    run = content("dmd", "wan", None)
    assert "lora" not in identity(resolve(run, ZOO, "test").plain(), "fp32")["training"]
    made = identity(resolve(run_of(*CELLS[0]), ZOO, "test").plain(), "fp32")["training"]
    assert made["lora"]["student"] == {"rank": RANK, "alpha": 8.0, "targets": None}


@pytest.mark.parametrize(("method", "backbone", "memory"), CELLS[:2])
def test_a_plan_counts_adapters_as_trained_and_the_base_once(method, backbone, memory, plain):
    run = run_of(method, backbone, memory)
    resolved = resolve(run, ZOO, "test")
    check_training(resolved, ZOO, "test")
    plan = plan_run(resolved, ZOO, "cpu")
    trainer = plain(method, backbone, memory)
    networks = trainer.networks
    adapters = {
        role: sum(4 * p.numel() for _, p in trainable(networks[role]))
        for role in networks
        if role != "teacher"
    }
    every = {id(p): 4 * p.numel() for role in networks for p in networks[role].parameters()}
    memory_of = {name: round(gib * GIB) for name, gib in plan.memory.items()}
    assert memory_of["gradients"] == max(adapters["student"], adapters["fake_score"])
    assert sum(n for name, n in memory_of.items() if name.startswith("weights")) == sum(
        every.values()
    )
    assert {name: memory_of[f"weights {name}"] for name in adapters} == adapters
    trained = adapters["student"] + adapters["fake_score"]
    assert memory_of["optimizer states"] == trained  # betas (0, ...): one moment
    full = copy.deepcopy(run)
    full["training"]["lora"] = {}
    others = plan_run(resolve(full, ZOO, "test"), ZOO, "cpu")
    assert plan.passes == others.passes
    assert 0.7 * others.flops < plan.flops < others.flops  # no gradients of the frozen weights
    assert trainer.cost()["flops"] == pytest.approx(2 * plan.flops, rel=0.3)  # exits are drawn


def test_in_bf16_the_base_is_held_in_it_and_adapters_in_float32(tmp_path):
    run = run_of(*CELLS[1])
    run["training"]["precision"] = "bf16"
    networks = train(resolve(run, ZOO, "test"), tmp_path, ZOO, "cpu").networks
    for role in ("student", "fake_score", "student_ema"):
        for name, layer in lora_layers(networks[role]).items():
            assert layer.weight.dtype == torch.bfloat16, name
            assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32
            assert layer.lora_B.any(), name
