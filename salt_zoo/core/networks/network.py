"""Velocity networks and their KV caches: what a rollout calls.

Shapes: latents `[B, C, F, H, W]`, times `[B]` or `[B, F]` in [0, 1] with 1 = noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from salt_zoo.core.base.sequence import SequenceGroup

#: What a network is told about the wanted video: named tensors, each with the batch in front.
#: There is `text`, `[B, tokens, width]`, and what `Backbone.encode_images` makes of first frames.
Condition = Mapping[str, "Tensor"]


class Memory(Protocol):
    """A KV cache and its policy. Read by `forward`, written by `update_cache` only."""

    #: Frames that it has room for, and the most that a switch hands it; None is without bound.
    slots: int | None
    #: Frames after which it is full; None says never.
    limit: int | None

    def bytes(self) -> int:
        """Bytes that the cached keys and values take."""
        ...

    def switch(self, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]) -> None:
        """The prompt changes before the next block: keep, drop or rebuild what is remembered.

        `recent` are the clean latents of the finished blocks, the oldest first (as many as the
        caller has kept); `update_cache` commits one of them anew under the new prompt.
        """
        ...


@runtime_checkable
class NetworkWrapper(Protocol):
    """A network around another, to which it hands other rows than it is given, as guidance does."""

    def inner_memory(self, make: Callable[[Any, Tensor], Memory], x: Tensor) -> Memory:
        """An empty memory for the rows that the other is handed for videos like `x`."""
        ...


class VelocityNetwork(Protocol):
    """A torch module that predicts the velocity `noise - x0`.

    It may also be `Checkpointable`, `SequenceParallel`, a `FeatureExtractor` and a `MaskedForward`,
    and one that `ChoosesAttention`.
    """

    def __call__(
        self, x: Tensor, t: Tensor, condition: Condition, memory: Memory | None = None
    ) -> Tensor:
        """The velocity `[B, C, F, H, W]` at `x` and `t`; never changes `memory`."""
        ...

    def update_cache(self, x: Tensor, t: Tensor, condition: Condition, memory: Memory) -> None:
        """Commit a finished block to `memory`; no gradient. Evaluates the network through
        `self(...)`, so that the pass is counted."""
        ...


@runtime_checkable
class ComparableMemory(Protocol):
    """A memory that can be compared with another of the same network and video size."""

    def distance(self, other: Any) -> Tensor:
        """`[B, layers]`: how far what it keeps is from what the other keeps, relative to that."""
        ...


@runtime_checkable
class Checkpointable(Protocol):
    """A velocity network with gradient checkpointing."""

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        ...


@runtime_checkable
class SequenceParallel(Protocol):
    """A velocity network whose passes several processes can make together."""

    def enable_sequence_parallelism(self, group: SequenceGroup, shape: Sequence[int]) -> None:
        """Share the tokens and the heads of every pass, and the memories, over `group`; what passes
        return stays whole. `shape` is C, F, H, W of the videos.

        Raises:
            ZooError: heads, tokens or the memory cannot be shared by so many.
        """
        ...


@dataclass(frozen=True)
class AttentionUse:
    """What a backend of attention has to do.

    Attributes:
        device, dtype: of queries, keys and values.
        backward: whether gradients are wanted.
    """

    device: torch.device
    dtype: torch.dtype
    backward: bool


@runtime_checkable
class ChoosesAttention(Protocol):
    """A velocity network whose attention several libraries can compute."""

    def choose_attention(self, backend: str, use: AttentionUse | None) -> None:
        """Compute attention without a mask by `backend` from now on, also in copies. `native` is
        torch's, and what a new network has. The backend is tried first, on a few numbers; the
        network itself may have no data yet. Without `use`, for plans, the name alone is checked.

        Raises:
            ZooError: an unknown name, or one that is not installed or cannot be used so; the line
                says what would be right, and not where the name was written.
        """
        ...


@runtime_checkable
class FeatureExtractor(Protocol):
    """A velocity network that shows its hidden states."""

    def features(self, x: Tensor, t: Tensor, condition: Condition, depth: float) -> Tensor:
        """`[B, F*S, D]` after the share `depth` in (0, 1] of its blocks, tokens in frame order."""
        ...


@runtime_checkable
class MaskedForward(Protocol):
    """A causal network that evaluates all blocks in one pass, under a mask."""

    def can_mask(self, frames: int) -> bool:
        """Whether its memory has an equivalent mask for a video of `frames` latent frames, so that
        one block-causal pass is the blocks one by one."""
        ...

    def forward_masked(
        self, x: Tensor, t: Tensor, x0: Tensor, condition: Condition
    ) -> Tensor | None:
        """Velocities `[B, C, F, H, W]` of noisy `x`, every block given the clean blocks of `x0`
        before it; None where its memory allows no mask. The past carries gradient."""
        ...
