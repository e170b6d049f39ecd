"""The KV cache: preallocated buffers, read by the network's passes and written by `commit`.

What is kept, in which slots and at which positions is a policy's business (`memories/`); a policy
is arithmetic of frames and never sees a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor

from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import Condition
from salt_zoo_self_forcing.masks import Span


@dataclass(frozen=True)
class Placement:
    """Where the next block goes, in frames.

    Attributes:
        slots: the slot of each of its frames.
        used: how many slots, from the first, its queries see; its own are among them.
        positions: the rotary positions of its frames.
        keys: the positions of the `used` slots where keys are kept unrotated, else None.
    """

    slots: list[int]
    used: int
    positions: list[int]
    keys: list[int] | None = None


class Policy(Protocol):
    """What a memory keeps and where. Made as `Factory(config, zoo)` from the registry `memories`.

    It has no state of its own: one policy serves all memories of a network, in training and after.
    It may also be a `PreparedPolicy`, be one that `MakesCache`, or one that `NeedsAllHeads`.
    """

    def capacity(self, frames: int) -> int:
        """Slots for a video of `frames` frames."""
        ...

    def place(self, cache: KVCache, frames: int) -> Placement:
        """Where the next `frames` frames go.

        Raises:
            ZooError: there is no room for them.
        """
        ...

    def committed(self, cache: KVCache, frames: int) -> None:
        """Called when `frames` frames have been committed; `cache.count` includes them."""
        ...

    def switched(
        self, cache: KVCache, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]
    ) -> None:
        """Called when the prompt changes before the next block; see `protocols.Memory.switch`."""
        ...

    def span(self, frames: int) -> Span | None:
        """What a frame sees of a video of `frames` frames, for a masked pass over all of it; None
        where no single pass can say it."""
        ...


@runtime_checkable
class PreparedPolicy(Protocol):
    """A policy that keeps tensors beside keys and values."""

    def prepare(self, cache: KVCache) -> None:
        """Called once with a new cache: put those tensors into `cache.beside`."""
        ...


@runtime_checkable
class MakesCache(Protocol):
    """A policy that stores keys and values in another form than they are computed in."""

    def new_cache(self, shape: CacheShape, frames: int, group: SequenceGroup | None) -> KVCache:
        """An empty cache for a video of `frames` frames."""
        ...


@runtime_checkable
class NeedsAllHeads(Protocol):
    """A policy that does not treat every head alike and by itself, so that processes cannot each
    keep a part of the heads (`execution.sequence`)."""

    #: Why, for the error.
    needs_all_heads: str


@dataclass(frozen=True)
class CacheShape:
    """Sizes of the keys (and of the values) of a network for a batch of videos; `heads` are those
    that this process keeps."""

    rows: int
    layers: int
    heads: int
    width: int  # of a head
    tokens: int  # of a frame
    dtype: torch.dtype
    device: torch.device | str


def new_cache(
    policy: Policy, shape: CacheShape, frames: int, group: SequenceGroup | None = None
) -> KVCache:
    """An empty cache for a video of `frames` frames, as the policy stores it."""
    if isinstance(policy, MakesCache):
        return policy.new_cache(shape, frames, group)
    return KVCache(policy, shape, frames, group)


class KVCache:
    """Keys and values of a causal Wan, `[rows, slots * tokens, heads, width]` for every layer.

    A pass without gradient writes its own keys and values into the slots that its block will have,
    which no committed frame that is still visible uses, so that nothing is concatenated; only
    `commit` makes them part of the memory. A pass with gradient writes nothing.

    Args:
        group: the processes that each keep a part of the heads.

    Attributes:
        count: committed frames since it was emptied.
        origin: the position of the first of them.
        frame: committed frames in all, so that the next block begins at this frame of the video.
        version: grows with every change, so that a late reader notices.
    """

    def __init__(
        self, policy: Policy, shape: CacheShape, frames: int, group: SequenceGroup | None = None
    ) -> None:
        self.policy, self.shape, self.group = policy, shape, group
        self.slots = policy.capacity(frames)
        size = (shape.rows, self.slots * shape.tokens, shape.heads, shape.width)
        # zeros: a slot that was never written must not hold a NaN
        self.keys = [self._empty(size) for _ in range(shape.layers)]
        self.values = [self._empty(size) for _ in range(shape.layers)]
        self.count = self.origin = self.version = self.frame = 0
        #: First frames (counted like `count`) after a cut, for policies with relative positions.
        self.cuts: list[int] = []
        #: What the policy keeps beside keys and values.
        self.beside: list[Tensor] = []
        if isinstance(policy, PreparedPolicy):
            policy.prepare(self)
        #: The condition whose tokens' keys and values are in `cross`, by layer: the prompt's, then
        #: the image's.
        self.prompt: Condition | None = None
        self.cross: dict[int, Sequence[tuple[Tensor, Tensor]]] = {}
        #: What the network has worked out for the next block, and for which version and shape.
        self.plan: tuple[Any, Any] | None = None

    def _empty(self, size: Sequence[int]) -> Tensor:
        return torch.zeros(size, dtype=self.shape.dtype, device=self.shape.device)

    def bytes(self) -> int:
        """Bytes of the buffers, of what the policy keeps beside them, and of the prompt's keys and
        values once they are there."""
        pairs = [pair for layer in self.cross.values() for pair in layer]
        cross = [tensor for pair in pairs for tensor in pair]
        kept = [*self.keys, *self.values, *self.beside, *cross]
        return sum(t.numel() * t.element_size() for t in kept)

    @property
    def limit(self) -> int | None:
        """Frames after which it is full; None where the oldest make room for the next."""
        return None if self.policy.capacity(self.slots + 1) == self.slots else self.slots

    def rows(self, slots: Sequence[int]) -> slice | Tensor:
        """The rows of the buffers that slots take: a slice where they lie side by side."""
        n, first = self.shape.tokens, slots[0]
        if list(slots) == list(range(first, first + len(slots))):
            return slice(first * n, (first + len(slots)) * n)
        rows = torch.tensor(slots)[:, None] * n + torch.arange(n)
        return send(rearrange(rows, "slots tokens -> (slots tokens)"), self.shape.device)

    def extended(
        self, layer: int, keys: Tensor, values: Tensor, own: slice | Tensor, used: int
    ) -> tuple[Tensor, Tensor]:
        """A layer's keys and values over the first `used` slots, a block's own in its slots."""
        past = self.past(layer, used * self.shape.tokens)
        return _with(past[0], keys, own), _with(past[1], values, own)

    def past(self, layer: int, rows: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values in the first `rows` rows, as they are read."""
        return self.keys[layer][:, :rows], self.values[layer][:, :rows]

    def commit(self, frames: int) -> None:
        """Keep the block of `frames` frames that the last pass without gradient was over."""
        self.count += frames
        self.frame += frames
        self.version += 1
        self.policy.committed(self, frames)

    def reset(self, origin: int = 0) -> None:
        """Empty it; the next frame has the position `origin`."""
        self.count, self.origin, self.cuts = 0, origin, []
        self.version += 1

    def distance(self, other: KVCache) -> Tensor:
        """Relative L2 distance of what is kept to another memory's in every layer, the mean over
        keys and values: `[rows, layers]`."""
        seen = min(self.count, self.slots) * self.shape.tokens
        found = []
        for layer in range(self.shape.layers):
            of_layer = []
            for own, wanted in zip(self.past(layer, seen), other.past(layer, seen), strict=True):
                own, wanted = (x.flatten(1).float() for x in (own, wanted))
                of_layer.append(self._norm(own - wanted) / self._norm(wanted).clamp(min=1e-12))
            found.append((of_layer[0] + of_layer[1]) / 2)
        return torch.stack(found, dim=1)

    def _norm(self, x: Tensor) -> Tensor:
        """Of the rows of `x` `[rows, numbers]` over all heads."""
        norm = x.norm(dim=1)
        return norm if self.group is None else self.group.total(norm.square()).sqrt()

    def switch(self, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]) -> None:
        """The prompt changes before the next block."""
        self.version += 1
        end, begins, frame = self.frame, {}, self.frame
        for block in reversed(recent):
            frame -= block.shape[2]
            begins[id(block)] = frame

        def again(block: Tensor) -> None:
            self.frame = begins.get(id(block), self.frame)
            update_cache(block)

        self.policy.switched(self, recent, again)
        self.frame = end


def _with(buffer: Tensor, new: Tensor, place: slice | Tensor) -> Tensor:
    """`buffer` with `new` in `place`: in place, or in a copy where a gradient is recorded."""
    new = new.to(buffer.dtype)
    if not torch.is_grad_enabled():
        buffer[:, place] = new
        return buffer
    if isinstance(place, slice):
        return torch.cat([buffer[:, : place.start], new, buffer[:, place.stop :]], dim=1)
    return buffer.index_copy(1, place, new)
