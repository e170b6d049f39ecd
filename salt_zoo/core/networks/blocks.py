"""The types of a rollout: blocks of frames and their memory, step lists, exit steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from salt_zoo.core.networks.network import Condition, Memory, NetworkWrapper

if TYPE_CHECKING:
    from torch import Tensor

#: How a step goes on to the next time: by noising the clean estimate anew, or along the velocity.
Sampler = Literal["sde", "ode"]
#: Noise for one block at the time to which it is noised again: `(block, time) -> [B, C, f, H, W]`;
#: None goes on along the velocity for this once.
Renoise: TypeAlias = "Callable[[int, float], Tensor | None]"


@dataclass(frozen=True)
class Blocks:
    """In which blocks of frames a backbone generates, and the memory that joins them.

    Attributes:
        frames: of a block; None is all frames at once.
        first: frames of the first block, where it is another number (an independent first frame).
        new_memory: `new_memory(network, x)` makes an empty memory for videos like `x`
            `[B, C, F, H, W]`; None for a bidirectional network.
        context_noise: the time in [0, 1) at which a finished block is noised and remembered.
    """

    frames: int | None = None
    first: int | None = None
    new_memory: Callable[[Any, Tensor], Memory] | None = None
    context_noise: float = 0.0

    def size(self, block: int, frames: int) -> int:
        """Frames of block number `block` in a video of `frames` frames."""
        if block == 0 and self.first:
            return self.first
        return self.frames or frames

    def split(self, frames: int) -> list[slice]:
        """The blocks of a video of `frames` frames.

        Raises:
            ValueError: the blocks do not fill the video.
        """
        parts: list[slice] = []
        start = 0
        while start < frames:
            stop = start + self.size(len(parts), frames)
            parts.append(slice(start, stop))
            start = stop
        if start != frames:
            first = f" after a first one of {self.first}" if self.first else ""
            raise ValueError(f"{frames} frames cannot be split into blocks of {self.frames}{first}")
        return parts

    def memory(self, network: Any, x: Tensor) -> Memory | None:
        """An empty memory of `network` for videos like `x`; None for a bidirectional one."""
        if self.new_memory is None:
            return None
        if isinstance(network, NetworkWrapper):
            return network.inner_memory(self.new_memory, x)
        return self.new_memory(network, x)


@dataclass(frozen=True)
class RolloutPath:
    """How a training rollout goes: its step list, the exit step (an index into it) and how a step
    goes on to the next.

    `times` are shifted ones, those of `flow.step_list(n, shift)`, which evaluation uses, too: for
    4 steps with shift 5 `[1, 0.9375, 0.8333, 0.625]`, and not `[1, 0.75, 0.5, 0.25]`.
    """

    times: list[float]
    exit_step: int
    sampler: Sampler = "sde"


@dataclass(frozen=True)
class ExitStep:
    """The exit step of one block, before the block is committed to the memory.

    `x` is the step's input at time `t`, `v` the network's velocity there and `x0` the clean
    estimate; `v` and `x0` carry the gradient.
    """

    block: int
    frames: slice
    step: int
    t: float
    x: Tensor
    v: Tensor
    x0: Tensor
    condition: Condition
    memory: Memory | None
