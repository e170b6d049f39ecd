"""The memory `full`: everything, at absolute positions (Self Forcing, arXiv 2506.08009, the KV of
Algorithm 1; CausVid, arXiv 2412.07772, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import Zoo
from salt_zoo_self_forcing.cache import KVCache, Placement
from salt_zoo_self_forcing.masks import Span
from salt_zoo_self_forcing.memories.ring import recache


class FullMemoryConfig(StrictModel):
    """Options of the memory `full`."""

    #: On a new prompt nothing changes, or all frames are remembered anew under it.
    on_switch: Literal["keep", "recache"] = "keep"


class FullMemory:
    """Keys of all frames, stored rotated at their absolute frame."""

    version = 1
    Config = FullMemoryConfig

    def __init__(self, config: FullMemoryConfig, zoo: Zoo) -> None:
        self.config = config

    def capacity(self, frames: int) -> int:
        return frames

    def place(self, cache: KVCache, frames: int) -> Placement:
        end = cache.count + frames
        if end > cache.slots:
            raise ZooError(
                f"the memory 'full' was made for {cache.slots} frames and is asked for {end}; "
                "a memory with a window has no end: backbone.memory=window"
            )
        own = list(range(cache.count, end))
        return Placement(own, end, [cache.origin + frame for frame in own])

    def committed(self, cache: KVCache, frames: int) -> None:
        pass

    def switched(
        self, cache: KVCache, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]
    ) -> None:
        if self.config.on_switch == "recache":
            recache(cache, recent, update_cache)

    def span(self, frames: int) -> Span:
        return Span()
