"""Shards that the processes of a run make together, and each of them alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from salt_zoo.io.distributed import on_main


def deal(missing: Callable[[], Sequence[int]]) -> Iterator[int]:
    """The shards that this process makes, every n-th of those that are `missing`.

    The first process looks for them, and when the last one is done, all go on together. A process
    that fails ends the others, as torchrun does.
    """
    shards = on_main(lambda: list(missing()))
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    yield from shards[rank::world]
    on_main(lambda: None)
