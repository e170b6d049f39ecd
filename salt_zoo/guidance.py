"""Classifier-free guidance as a velocity network."""

from __future__ import annotations

from torch import Tensor

from salt_zoo import flow
from salt_zoo.conditions import concatenate
from salt_zoo.protocols import Condition, Memory, VelocityNetwork


class Guided:
    """`v_uncond + w * (v_cond - v_uncond)` of a network, both halves in one doubled batch.

    At w = 1 the network is evaluated once, conditionally; guidance counts twice otherwise.
    """

    def __init__(
        self, network: VelocityNetwork, unconditional: Condition, guidance_scale: float
    ) -> None:
        self.network = network
        self.unconditional = unconditional
        self.guidance_scale = guidance_scale

    def __call__(
        self, x: Tensor, t: Tensor, condition: Condition, memory: Memory | None = None
    ) -> Tensor:
        if self.guidance_scale == 1:
            return self.network(x, t, condition, memory)
        if memory is not None:
            raise TypeError("guidance with a memory needs one memory for each half")
        both = concatenate(self.unconditional, condition)
        v = self.network(x.repeat(2, 1, 1, 1, 1), t.repeat(2, *[1] * (t.ndim - 1)), both)
        return flow.guide(*v.chunk(2), self.guidance_scale)

    def remember(self, x: Tensor, t: Tensor, condition: Condition, memory: Memory) -> None:
        self.network.remember(x, t, condition, memory)
