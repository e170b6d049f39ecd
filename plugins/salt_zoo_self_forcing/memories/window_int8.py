"""The memory `window-int8`: a window whose keys and values are stored in int8."""

from __future__ import annotations

from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo_self_forcing.cache import CacheShape, KVCache
from salt_zoo_self_forcing.int8_cache import Int8KVCache
from salt_zoo_self_forcing.memories.window import WindowMemory


class WindowInt8Memory(WindowMemory):
    """The frames and positions of `window`."""

    def new_cache(self, shape: CacheShape, frames: int, group: SequenceGroup | None) -> KVCache:
        return Int8KVCache(self, shape, frames, group)

    def span(self, frames: int) -> None:
        """None: a masked pass would see what is not rounded."""
        return None
