"""AdamW at beta1 = 0, whose first moment is the gradient itself: one state a weight, not two."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.training.state.sharding import local

#: Weights that are updated together: roots are made anew for so many at a time.
TOGETHER = 32


class MemorylessAdamW(torch.optim.Optimizer):
    """`torch.optim.AdamW(betas=(0, beta2))`, bit for bit, without keeping its first moment.

    Distribution matching trains with beta1 = 0 (Self Forcing, arXiv 2506.08009), where torch keeps
    a second copy of every gradient between updates: 4 bytes a weight, 5.3 GiB for 1.3 B.

    Args:
        parameters: what is trained.
        lr: learning rate.
        beta2: decay of the mean square of the gradient, in [0, 1).
        weight_decay: decoupled, times the learning rate.
        eps: added to the root of the mean square.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        beta2: float,
        weight_decay: float,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "beta2": beta2, "weight_decay": weight_decay, "eps": eps}
        super().__init__(parameters, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also what torch's AdamW has saved at beta1 = 0."""
        super().__setstate__(state)
        for group in self.param_groups:
            if "betas" in group:
                group["beta2"] = group.pop("betas")[1]
        for kept in self.state.values():
            kept.pop("exp_avg", None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if weight not in self.state:
                    self.state[weight] = {
                        "step": torch.tensor(0.0),
                        "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
                    }
            for first in range(0, len(weights), TOGETHER):
                self._update(group, weights[first : first + TOGETHER])

    def _update(self, group: dict[str, Any], weights: list[Any]) -> None:
        gradients = local([p.grad for p in weights])
        squares = local([self.state[p]["exp_avg_sq"] for p in weights])
        steps: list[Tensor] = [self.state[p]["step"] for p in weights]
        torch._foreach_add_(steps, 1)
        weights = local(weights)  # element by element, so that each shard is updated by itself
        beta2, lr = group["beta2"], group["lr"]
        # steps are on the CPU: reading them waits for no device
        corrections = [(1 - beta2 ** step.item()) ** 0.5 for step in steps]
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, corrections)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(weights, gradients, roots, -lr)
