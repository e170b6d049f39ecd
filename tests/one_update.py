"""The gradients of a run, as its optimizers see them, and how alike those of two runs are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from salt_zoo.config.run import resolve
from salt_zoo.training.launch import train

#: How far an update in a precision may be from one in float32 (relative, see `differences`): by
#: bfloat16 about 0.03 on a CPU, most for small differences of large terms such as DMD's gradient.
TOLERANCES = {"fp32": 0.01, "tf32": 0.1, "bf16": 0.1}

#: One entry for each step of an optimizer: gradients (None where there is none) by parameter's id.
Steps = list[dict[int, Tensor | None]]


@contextmanager
def recorded_gradients() -> Iterator[Steps]:
    """The gradients, on the CPU, with which optimizers step inside the block."""
    steps: Steps = []

    def look(optimizer: Any, *rest: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        steps.append({id(p): None if p.grad is None else p.grad.cpu().clone() for p in parameters})

    handle = register_optimizer_step_pre_hook(look)
    try:
        yield steps
    finally:
        handle.remove()


def names(networks: Mapping[str, Any]) -> dict[int, str]:
    """`role: name` of every parameter by its id."""
    return {
        id(parameter): f"{role}: {name}"
        for role, network in networks.items()
        for name, parameter in network.named_parameters()
    }


@dataclass(frozen=True)
class Update:
    """The first update of a run: what was logged, and gradients by turn and parameter."""

    logs: Mapping[str, float]
    gradients: list[dict[str, Tensor | None]]


def one_update(content: Mapping[str, Any], zoo: Any, folder: Path, device: str) -> Update:
    """Make the first update of the run `content` through the real trainer."""
    logs: list[Mapping[str, float]] = []
    with recorded_gradients() as steps:
        resolved = resolve(content, zoo, "test")
        trainer = train(resolved, folder, zoo, device, lambda step, n, found: logs.append(found))
    known = names(trainer.networks)
    return Update(logs[0], [{known[key]: g for key, g in step.items()} for step in steps])


def without_gradient(update: Update) -> set[str]:
    """The trained tensors that some turn left without a gradient."""
    return {
        name
        for turn in update.gradients
        for name, gradient in turn.items()
        if gradient is None or not gradient.any()
    }


def differences(found: Update, wanted: Update) -> dict[str, float]:
    """How far two updates are from each other, relative to `wanted`: of every logged loss, and of
    the whole gradient of every turn (L2), as `loss NAME` and `gradient N (ROLE)`."""
    assert found.logs.keys() == wanted.logs.keys()
    assert len(found.gradients) == len(wanted.gradients)
    result = {
        f"loss {name}": abs(found.logs[name] - value) / max(abs(value), 1e-12)
        for name, value in wanted.logs.items()
        if name.endswith("/loss")
    }
    for turn, (its, own) in enumerate(zip(found.gradients, wanted.gradients, strict=True)):
        assert its.keys() == own.keys()
        role = next(iter(own)).split(":")[0]
        mine = [(its[name], own[name]) for name in own if own[name] is not None]
        off = torch.stack([(a - b).double().square().sum() for a, b in mine]).sum().sqrt()
        whole = torch.stack([b.double().square().sum() for a, b in mine]).sum().sqrt()
        result[f"gradient {turn} ({role})"] = float(off / whole)
    return result
