"""The memory `window`: the first frames and the latest, at absolute positions (LongLive 1.0,
arXiv 2509.22622, section 3.3; with a sink of 0 the rolling KV cache of Self Forcing, arXiv
2506.08009, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from salt_zoo.core.base.config import StrictModel
from salt_zoo.plugin.manager import Zoo
from salt_zoo_self_forcing.cache import KVCache, Placement
from salt_zoo_self_forcing.masks import Span
from salt_zoo_self_forcing.memories.ring import Ring, recache


class WindowMemoryConfig(StrictModel):
    """Options of the memory `window`; the defaults are LongLive's."""

    #: Frames that a block sees, the sink and the block itself included.
    frames: Annotated[int, Field(ge=1, le=100_000)] = 12
    #: First frames that are always seen.
    sink: Annotated[int, Field(ge=0, le=100_000)] = 3
    #: On a new prompt the frames of the window are remembered anew under it, or nothing changes.
    on_switch: Literal["recache", "keep"] = "recache"


class WindowMemory:
    """Keys stored rotated at their absolute frame; sink and survivors are never re-based."""

    version = 1
    Config = WindowMemoryConfig

    def __init__(self, config: WindowMemoryConfig, zoo: Zoo) -> None:
        self.config = config
        self.ring = Ring(config.frames, config.sink)

    def capacity(self, frames: int) -> int:
        return self.ring.size

    def place(self, cache: KVCache, frames: int) -> Placement:
        slots, used = self.ring.next(cache.count, frames)
        first = cache.origin + cache.count
        return Placement(slots, used, list(range(first, first + frames)))

    def committed(self, cache: KVCache, frames: int) -> None:
        pass  # what leaves the window is overwritten by the next block

    def switched(
        self, cache: KVCache, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]
    ) -> None:
        if self.config.on_switch == "recache":
            recache(cache, recent, update_cache)

    def span(self, frames: int) -> Span | None:
        return Span(self.ring.size, self.ring.sink)
