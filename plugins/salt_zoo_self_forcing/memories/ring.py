"""Slots of a window: the first frames have their own, the others go round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo_self_forcing.cache import KVCache


@dataclass(frozen=True)
class Ring:
    """`size` slots, of which the first `sink` are never given away.

    Frames are counted from the emptying of the memory.
    """

    size: int
    sink: int

    @property
    def local(self) -> int:
        """Slots that go round."""
        return self.size - self.sink

    def slot(self, frame: int) -> int:
        return frame if frame < self.sink else self.sink + (frame - self.sink) % self.local

    def next(self, count: int, frames: int) -> tuple[list[int], int]:
        """Slots of the next `frames` frames, and how many of all slots are then in use.

        The next frames take the slots of those that they no longer see.

        Raises:
            ZooError: the window has less room than a block needs.
        """
        if self.local < frames:
            raise ZooError(
                f"backbone.memory: a window of {self.size} frames with a sink of {self.sink} "
                f"leaves {self.local} for a block of {frames}; raise its 'frames'"
            )
        slots = [self.slot(frame) for frame in range(count, count + frames)]
        return slots, min(count + frames, self.size)

    def seen(self, count: int, frames: int) -> list[int]:
        """Which frame lies in each slot that the next block sees, its own among them."""
        end = count + frames
        kept = [*range(min(self.sink, end)), *range(max(self.sink, end - self.local), end)]
        by_slot = {self.slot(frame): frame for frame in kept}
        return [by_slot[slot] for slot in range(len(by_slot))]

    def evicted(self, count: int, frames: int) -> range:
        """The frames that a next block of `frames` frames no longer sees, and the last one did."""
        return range(
            max(self.sink, count - self.local), max(self.sink, count + frames - self.local)
        )


def recache(
    cache: KVCache, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]
) -> None:
    """Empty the memory and remember the recent blocks anew, as many as it keeps, at their old
    positions (LongLive, arXiv 2509.22622, section 3.1 and Algorithm 2)."""
    kept: list[Tensor] = []
    frames = 0
    for x in reversed(recent):
        if frames + x.shape[2] > min(cache.slots, cache.count):
            break
        kept.insert(0, x)
        frames += x.shape[2]
    cache.reset(cache.origin + cache.count - frames)
    for x in kept:
        update_cache(x)
