"""Where a training went wrong: the network that blew up first, not the first that noticed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from salt_zoo.core.base.errors import TrainingError
from salt_zoo.core.networks.lora import trainable
from salt_zoo.training.checkpoints.checkpoint import checkpoints
from salt_zoo.training.state.networks import Networks

#: A network whose largest weight is so many times that of another trained one has blown up.
FAR = 1e3


def not_finite(
    step: int, logged: str, value: float, networks: Networks, place: Path
) -> TrainingError:
    """The end of a training in which `logged` (as `student/loss`) has become NaN or infinite.

    Args:
        place: of the checkpoints. What was saved came of the same settings, and may be ruined, too.
    """
    anew = "(nothing was saved before it)"
    if kept := checkpoints(place):
        settings = f"{kept[-1]} came of the same settings"
        anew = f"with another --out, or here once {place} is deleted ({settings})"
    return TrainingError(
        f"update {step}: {logged} is {value}; {blame(logged, networks)} and start over {anew}"
    )


def blame(logged: str, networks: Networks) -> str:
    """What to say, and to do, about `logged` (as `student/loss`), which is not finite.

    A network that blows up makes the losses of those that see its videos go wrong before its own.
    """
    sizes = {name: _largest(network) for name, network in networks.items()}
    for name, size in sizes.items():
        if name not in networks.saved_roles() and not size < float("inf"):
            return f"the weights of {name!r} are not finite; give other weights"
    trained = {name: sizes[name] for name in networks.optimizers}
    role = logged.split("/")[0]
    worst = max(trained, key=lambda name: trained[name])
    others = [size for name, size in trained.items() if name != worst]
    if not trained[worst] < float("inf") or (others and trained[worst] > FAR * max(others)):
        role = worst
    if role not in networks.optimizers:
        return "lower training.clip or the learning rates"
    rate = networks.optimizers[role][0].param_groups[0]["base_lr"]
    found = (
        f"{role!r} blew up first (its largest weight is {trained[role]:.3g}); "
        if (role != logged.split("/")[0])
        else ""
    )
    return (
        f"{found}lower its learning rate (training.optimizers.{role}.learning_rate, now {rate:g}) "
        "or training.clip"
    )


@torch.no_grad()
def _largest(network: nn.Module) -> float:
    """The largest absolute weight; infinite where one is not finite."""
    largest = [
        float(weight.detach().abs().max()) for _, weight in trainable(network) if weight.numel()
    ]
    sizes = [size if size == size else float("inf") for size in largest]
    return max(sizes, default=0.0)
