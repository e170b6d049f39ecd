"""A folder of packed tensors: shards in safetensors, an index in parquet, a header in JSON.

Item by item the rows of a tensor follow each other in a shard, so that an item is one slice of a
memory-mapped file. Which items a shard has follows from the header alone: shards can be written in
any order and by several processes, and a folder that was interrupted goes on. Each shard has the
CRC-32 of each of its items, which is compared whenever one is read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.io.differences import difference
from salt_zoo.io.files.regular import check_regular
from salt_zoo.io.files.storage import atomic_file, digest, file_digest, prepare_folder, write_json

HEADER = "prepared.json"
INDEX = "index.parquet"
FORMAT = 1

#: An item by the names of its tensors, `[rows, ...]` each.
Item = Mapping[str, Tensor]


@dataclass(frozen=True)
class PackedFolder:
    """A folder and what its header says.

    The header has `format`, `kind` (of what the shards hold), `encoder` (digests of what made it,
    by name), `count` of items, `shard_size` (items of a shard), and whatever else decides the
    content. With `prompts` (one an item) it can be written to.
    """

    path: Path
    header: Mapping[str, Any]
    prompts: Sequence[str] = field(default=(), repr=False)

    @property
    def kind(self) -> str:
        kind: str = self.header["kind"]
        return kind

    @cached_property
    def shards(self) -> list[range]:
        """The items of each shard."""
        count, size = self.header["count"], self.header["shard_size"]
        return [range(first, min(first + size, count)) for first in range(0, count, size)]

    @cached_property
    def key(self) -> str:
        """What shards and index have of the header."""
        return digest(self.header)

    def file(self, shard: int) -> Path:
        return self.path / f"{self.kind}-{shard:05d}.safetensors"

    def write(self, shard: int, items: Sequence[Item], full: Mapping[str, int]) -> None:
        """Keep the items of a shard in their order.

        Args:
            full: how many rows a tensor has before its trailing rows of zeros are cut off, by name.
        """
        if len(items) != len(self.shards[shard]):
            raise ValueError(f"{len(items)} items for a shard of {len(self.shards[shard])}")
        tensors = {name: torch.cat([item[name] for item in items]).contiguous() for name in full}
        for name in full:
            tensors[f"{name}.rows"] = torch.tensor([len(item[name]) for item in items])
        tensors["crc"] = torch.tensor([crc_of(item, full) for item in items])
        # one entry: safetensors writes several in an order of its own
        metadata = {"packed": json.dumps({"header": self.key, "full": dict(full)})}
        with atomic_file(self.file(shard)) as draft:
            save_file(tensors, draft, metadata=metadata)

    def fault(self, shard: int, whole: bool = True) -> str | None:
        """What is wrong with a shard that is there; `whole` also reads every item."""
        try:
            with safe_open(self.file(shard), framework="pt") as file:
                metadata = packed_metadata(file)
                if metadata["header"] != self.key:
                    return f"belongs to another {HEADER}"
                crc = file.get_tensor("crc").tolist()
                if len(crc) != len(self.shards[shard]):
                    return f"holds {len(crc)} items instead of {len(self.shards[shard])}"
                full = metadata["full"]
                rows = {name: file.get_tensor(f"{name}.rows").tolist() for name in full}
                packed = {name: file.get_tensor(name) for name in full} if whole else {}
        except Exception as error:  # safetensors raises several kinds for a damaged file
            return f"incomplete or corrupt ({reason(error)})"
        firsts = dict.fromkeys(full, 0)
        for place, wanted in enumerate(crc if whole else ()):
            item = {}
            for name, counts in rows.items():
                first, firsts[name] = firsts[name], firsts[name] + counts[place]
                item[name] = packed[name][first : firsts[name]]
            if crc_of(item, full) != wanted:
                return f"its item {place} has changed since it was written"
        return None

    def missing(self) -> list[int]:
        """The shards that are not there or not whole; reads all of them."""
        shards = range(len(self.shards))
        return [one for one in shards if not self.file(one).is_file() or self.fault(one)]

    def finish(self) -> None:
        """Write the index; every shard is there."""
        import pyarrow as pa
        import pyarrow.parquet

        columns: dict[str, list[Any]] = {"prompt": list(self.prompts), "shard": [], "crc": []}
        for shard, items in enumerate(self.shards):
            with safe_open(self.file(shard), framework="pt") as file:
                full = packed_metadata(file)["full"]
                columns["shard"] += [shard] * len(items)
                columns["crc"] += file.get_tensor("crc").tolist()
                for name in full:
                    rows = file.get_tensor(f"{name}.rows")
                    columns.setdefault(f"{name}.rows", []).extend(rows.tolist())
                    first = (rows.cumsum(0) - rows).tolist()
                    columns.setdefault(f"{name}.first", []).extend(first)
        table = pa.table(columns).replace_schema_metadata({"header": self.key})
        with atomic_file(self.path / INDEX) as draft:
            pyarrow.parquet.write_table(table, draft)

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the header and of the index, which has a CRC of every item."""
        return digest([self.header, file_digest(self.path / INDEX)])


def packed_metadata(file: Any) -> dict[str, Any]:
    """`header`, the key of the folder, and `full`, the rows of each tensor, of an open shard."""
    found: dict[str, Any] = json.loads(file.metadata()["packed"])
    return found


def crc_of(item: Item, names: Iterable[str]) -> int:
    """The CRC-32 of the bytes of an item's tensors, by their names' order."""
    found = 0
    for name in sorted(names):
        found = zlib.crc32(item[name].contiguous().view(torch.uint8).numpy().tobytes(), found)
    return found


def open_packed(path: Path, header: Mapping[str, Any], prompts: Sequence[str]) -> PackedFolder:
    """A new folder for these items, or the one that is there to go on with.

    Raises:
        ZooError: it cannot be written, or holds what was made otherwise.
    """
    made = {"format": FORMAT, "count": len(prompts), "prompts": digest(list(prompts)), **header}
    content = json.loads(json.dumps(made))
    prepare_folder(path)
    if (path / HEADER).exists():
        if found := difference(read_header(path), content):
            raise ZooError(
                f"{path}: was prepared otherwise ({found}); choose another folder, or delete this "
                "one"
            )
    else:
        write_json(path / HEADER, content)
    return PackedFolder(path, content, prompts)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a folder.

    Raises:
        ZooError: there is none, or not one of this version.
    """
    file = path / HEADER
    if not path.is_dir():
        what = "is a file, not such a folder" if path.exists() else "there is no such folder"
        raise ZooError(f"{path}: {what}; 'salt-zoo prepare' makes one")
    try:
        check_regular(file, "prepare the folder again")
        header: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = header["format"]
    except FileNotFoundError:
        raise ZooError(
            f"{path}: holds nothing that 'salt-zoo prepare' has made (it has no {HEADER})"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ZooError(f"{file}: corrupt ({reason(error)}); prepare the folder again") from None
    if version != FORMAT:
        raise ZooError(f"{file}: its format is {version}, and this version reads {FORMAT}")
    if missing := {"kind", "encoder", "count", "shard_size"} - header.keys():
        raise ZooError(f"{file}: corrupt (it lacks {min(missing)!r}); prepare the folder again")
    return header
