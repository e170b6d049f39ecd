"""Makes the shards of a packed folder that are not there, over all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core.base.ranks import is_main_process
from salt_zoo.io.dealing import deal
from salt_zoo.io.distributed import on_main
from salt_zoo.io.files.headers import header_of_something
from salt_zoo.io.packed import HEADER, Item, PackedFolder, open_packed
from salt_zoo.plugin.isolation.foreign import fitting_batch

#: Called with (items done, items in all, {}).
Progress = Callable[[int, int, Mapping[str, float]], None]


def prepare_shards(
    folder: Path,
    header: Mapping[str, Any],
    prompts: Sequence[str],
    batch_size: int,
    make: Callable[[range], Mapping[str, Tensor]],
    progress: Progress,
) -> PackedFolder:
    """Write what `folder` lacks; `make` is given up to `batch_size` items of one shard.

    Args:
        make: returns tensors `[items, rows, ...]` by name. Rows of zeros at an item's end are cut
            off, and values that bfloat16 can hold exactly are kept in it.
    """
    made = on_main(lambda: open_packed(folder, header, prompts))
    count = len(prompts)
    with header_of_something(folder / HEADER, lambda: _done(made)):
        for shard in deal(made.missing):
            items: list[Item] = []
            full: dict[str, int] = {}
            rows = made.shards[shard]
            for first in range(rows.start, rows.stop, batch_size):
                some = range(first, min(first + batch_size, rows.stop))
                with fitting_batch(str(folder), batch_size), torch.no_grad():
                    found = {name: value.cpu() for name, value in make(some).items()}
                full = {name: value.shape[1] for name, value in found.items()}
                items += [
                    {name: _without_padding(value[row]) for name, value in found.items()}
                    for row in range(len(some))
                ]
            made.write(shard, _in_bf16(items), full)
            if is_main_process():
                progress(_done(made), count, {})
    on_main(made.finish)
    return made


def _done(made: PackedFolder) -> int:
    there = [items for shard, items in enumerate(made.shards) if made.file(shard).is_file()]
    return sum(map(len, there))


def _without_padding(value: Tensor) -> Tensor:
    """An item without the rows of zeros at its end."""
    used = value.reshape(len(value), -1).ne(0).any(dim=1).nonzero()
    return value[: int(used[-1]) + 1 if len(used) else 0].clone()


def _in_bf16(items: list[Item]) -> list[Item]:
    """In bfloat16 where that changes no number of a shard: what an encoder in bfloat16 has made."""
    rough: list[Item] = [{name: value.bfloat16() for name, value in item.items()} for item in items]
    exact = all(
        torch.equal(one[name].to(item[name].dtype), item[name])
        for item, one in zip(items, rough, strict=True)
        for name in item
    )
    return rough if exact else items
