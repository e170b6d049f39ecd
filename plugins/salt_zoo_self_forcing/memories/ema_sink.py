"""The memory `ema-sink`: a window whose sink is an average of what has left it (Reward Forcing,
arXiv 2512.04678)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from salt_zoo.core.base.config import StrictModel
from salt_zoo.plugin.manager import Zoo
from salt_zoo_self_forcing.cache import KVCache, Placement
from salt_zoo_self_forcing.masks import Span
from salt_zoo_self_forcing.memories.ring import Ring, recache


class EmaSinkMemoryConfig(StrictModel):
    """Options of the memory `ema-sink`; the defaults are Reward Forcing's."""

    #: Frames that a block sees, the sink and the block itself included.
    frames: Annotated[int, Field(ge=2, le=100_000)] = 9
    #: Frames of the sink.
    sink: Annotated[int, Field(ge=1, le=100_000)] = 3
    #: `sink = decay * sink + (1 - decay) * evicted`, for keys and values.
    decay: Annotated[float, Field(ge=0, le=1)] = 0.999
    #: In what the average is kept: float32 in any case, or what the keys are in (`cache`), as in
    #: Reward Forcing's code, whose sink moves at about a third of the rate in bfloat16: 1 - decay
    #: is less than half of its last place.
    sink_dtype: Literal["float32", "cache"] = "float32"
    #: On a new prompt the frames of the window are remembered anew under it, or nothing changes.
    on_switch: Literal["recache", "keep"] = "recache"


class EmaSinkMemory:
    """Keys stored unrotated; on reading the sink is at 0, 1, ..., then the window, the block last.

    Frame `i` that leaves the window goes into the sink's frame `i` modulo the sink's length. With w
    frames in the window the paper ("EMA-Sink") has `S^i = a * S^{i-1} + (1 - a) * K^{i-w}`, and the
    same for V; a is `decay`.
    """

    version = 1
    Config = EmaSinkMemoryConfig

    def __init__(self, config: EmaSinkMemoryConfig, zoo: Zoo) -> None:
        self.config = config
        self.ring = Ring(config.frames, config.sink)

    def capacity(self, frames: int) -> int:
        return self.ring.size

    def place(self, cache: KVCache, frames: int) -> Placement:
        slots, used = self.ring.next(cache.count, frames)
        seen = self.ring.seen(cache.count, frames)
        rank = {frame: place for place, frame in enumerate(sorted(seen))}
        own = [rank[frame] for frame in range(cache.count, cache.count + frames)]
        return Placement(slots, used, own, [rank[frame] for frame in seen])

    def prepare(self, cache: KVCache) -> None:
        """The average in float32 where keys and values are in less; what is read is cast."""
        if self.config.sink_dtype == "float32" and torch.finfo(cache.shape.dtype).bits < 32:
            size = self.ring.sink * cache.shape.tokens
            cache.beside = [
                torch.zeros_like(buffer[:, :size], dtype=torch.float32)
                for buffer in (*cache.keys, *cache.values)
            ]

    def committed(self, cache: KVCache, frames: int) -> None:
        n = cache.shape.tokens
        buffers = [*cache.keys, *cache.values]
        averages = cache.beside or buffers
        first = slice((cache.count - frames) * n, min(cache.count, self.ring.sink) * n)
        for buffer, average in zip(buffers, averages, strict=True):
            average[:, first] = buffer[:, first]  # frames of the sink itself
        for frame in self.ring.evicted(cache.count, frames):
            old, sink = self.ring.slot(frame) * n, frame % self.ring.sink * n
            for buffer, average in zip(buffers, averages, strict=True):
                kept, leaving = average[:, sink : sink + n], buffer[:, old : old + n]
                kept.lerp_(leaving.to(kept.dtype), 1 - self.config.decay)  # a * S + (1 - a) * K
                if average is not buffer:
                    buffer[:, sink : sink + n] = kept

    def switched(
        self, cache: KVCache, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]
    ) -> None:
        if self.config.on_switch == "recache":
            recache(cache, recent, update_cache)

    def span(self, frames: int) -> Span | None:
        return Span() if frames <= self.ring.size else None
