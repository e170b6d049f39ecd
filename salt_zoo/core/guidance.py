"""Guidance as a velocity network: away from no prompt, or from a weaker network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einops import repeat
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.networks.condition import concatenate
from salt_zoo.core.networks.network import Condition, Memory, VelocityNetwork


class Guided:
    """`v_uncond + w * (v_cond - v_uncond)` of a network, both halves in one doubled batch
    (classifier-free guidance; `flow.guide` has its numbers).

    At w = 1 the network is evaluated once, conditionally; guidance counts twice otherwise. A memory
    is doubled in the same way: each half remembers the video under its own condition.
    """

    def __init__(
        self, network: VelocityNetwork, unconditional: Condition, guidance_scale: float
    ) -> None:
        self.network = network
        self.unconditional = unconditional
        self.guidance_scale = guidance_scale
        self._both: tuple[Condition, Condition] | None = None

    def __call__(
        self, x: Tensor, t: Tensor, condition: Condition, memory: Memory | None = None
    ) -> Tensor:
        if self.guidance_scale == 1:
            return self.network(x, t, condition, memory)
        both = self._doubled(condition)
        v = self.network(_twice(x), _twice(t), both, memory)
        v_uncond, v_cond = v.chunk(2)
        return flow.guide(v_uncond, v_cond, self.guidance_scale)

    def inner_memory(self, make: Callable[[Any, Tensor], Memory], x: Tensor) -> Memory:
        """An empty memory for videos like `x`, with rows for both halves."""
        return make(self.network, x if self.guidance_scale == 1 else _twice(x))

    def update_cache(self, x: Tensor, t: Tensor, condition: Condition, memory: Memory) -> None:
        if self.guidance_scale == 1:
            self.network.update_cache(x, t, condition, memory)
        else:
            self.network.update_cache(_twice(x), _twice(t), self._doubled(condition), memory)

    def _doubled(self, condition: Condition) -> Condition:
        """Both conditions; the same object for the same one, by which a memory knows it again."""
        if self._both is None or self._both[0] is not condition:
            self._both = condition, concatenate(self.unconditional, condition)
        return self._both[1]


class AutoGuided:
    """`v_weak + w * (v - v_weak)`: a network guided by a weaker one, under the same condition
    (autoguidance, arXiv 2406.02507: `w * D_1 + (1 - w) * D_0` of denoisers, `D_0` the weaker).

    At w = 1 the network is evaluated alone. For networks without a memory, as scores are.
    """

    def __init__(
        self, network: VelocityNetwork, weak: VelocityNetwork, guidance_scale: float
    ) -> None:
        self.network, self.weak, self.guidance_scale = network, weak, guidance_scale

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        v = self.network(x, t, condition)
        if self.guidance_scale == 1:
            return v
        return flow.guide(self.weak(x, t, condition), v, self.guidance_scale)


def _twice(x: Tensor) -> Tensor:
    return repeat(x, "b ... -> (two b) ...", two=2)
