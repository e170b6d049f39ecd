"""The memory `block-relative`: a window whose positions start anew at every block (Infinity-RoPE,
arXiv 2511.20649)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from salt_zoo.core.base.config import StrictModel
from salt_zoo.plugin.manager import Zoo
from salt_zoo_self_forcing.cache import KVCache, Placement
from salt_zoo_self_forcing.masks import Span
from salt_zoo_self_forcing.memories.ring import Ring


class BlockRelativeMemoryConfig(StrictModel):
    """Options of the memory `block-relative`; the defaults are Infinity-RoPE's."""

    #: Frames that a block sees, the sink and the block itself included.
    frames: Annotated[int, Field(ge=1, le=100_000)] = 6
    #: First frames that are always seen.
    sink: Annotated[int, Field(ge=0, le=100_000)] = 1
    #: On a new prompt all but the first frame and the last two is dropped (KV flush), or what comes
    #: is placed far from what was (RoPE cut, for a new scene), or nothing changes.
    on_switch: Literal["flush", "cut", "keep"] = "flush"
    #: Frames by which a cut moves what comes; the paper gives no number, this is Wan's 21 frames.
    cut_gap: Annotated[int, Field(ge=1)] = 21


class BlockRelativeMemory:
    """Keys stored unrotated; on reading they are at 0, 1, ... in order of time, the block last.

    "Block-Relativistic RoPE" of arXiv 2511.20649, and on a new prompt its "KV Flush" or "RoPE Cut".
    """

    version = 1
    Config = BlockRelativeMemoryConfig

    def __init__(self, config: BlockRelativeMemoryConfig, zoo: Zoo) -> None:
        self.config = config
        self.ring = Ring(config.frames, config.sink)

    def capacity(self, frames: int) -> int:
        return self.ring.size

    def place(self, cache: KVCache, frames: int) -> Placement:
        slots, used = self.ring.next(cache.count, frames)
        seen = self.ring.seen(cache.count, frames)
        rank = {
            frame: place + self.config.cut_gap * sum(cut <= frame for cut in cache.cuts)
            for place, frame in enumerate(sorted(seen))
        }
        own = [rank[frame] for frame in range(cache.count, cache.count + frames)]
        return Placement(slots, used, own, [rank[frame] for frame in seen])

    def committed(self, cache: KVCache, frames: int) -> None:
        pass  # what leaves the window is overwritten by the next block

    def switched(
        self, cache: KVCache, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]
    ) -> None:
        if self.config.on_switch == "cut":
            cache.cuts.append(cache.count)
        elif self.config.on_switch == "flush" and cache.count > 3:
            latest = range(cache.count - (2 if self.ring.sink else 3), cache.count)
            first = range(min(1, self.ring.sink))
            held = self.ring.seen(cache.count - 1, 1)  # by slot; a small window has less
            kept = sorted(frame for frame in held if frame in first or frame in latest)
            _keep(cache, [held.index(frame) for frame in kept])

    def span(self, frames: int) -> Span | None:
        return Span() if frames <= self.ring.size else None


def _keep(cache: KVCache, slots: Sequence[int]) -> None:
    """Only these slots, as if their frames were all there ever were."""
    n = cache.shape.tokens
    for buffer in (*cache.keys, *cache.values):
        chosen = [buffer[:, slot * n : (slot + 1) * n].clone() for slot in slots]
        for place, frame in enumerate(chosen):
            buffer[:, place * n : (place + 1) * n] = frame
    cache.reset()
    cache.count = len(slots)
