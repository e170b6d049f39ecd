"""Random access to the items of a packed folder."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.io.files.storage import digest
from salt_zoo.io.packed import INDEX, PackedFolder, crc_of, packed_metadata, read_header

#: Shards that are open at a time; they are memory-mapped and take no memory of their own.
OPEN = 64


class PackedReader:
    """Reads items of a folder that is finished; several threads may.

    Raises:
        ZooError: the folder is not there, not finished, or not whole.
    """

    def __init__(self, path: Path, kind: str | None = None) -> None:
        self.folder = PackedFolder(path, read_header(path))
        self.path, self.header, self.kind = path, self.folder.header, self.folder.kind
        if kind is not None and self.kind != kind:
            raise ZooError(
                f"{path}: holds {self.kind}, not {kind}; make those with 'salt-zoo prepare {kind}'"
            )
        self._columns = self._index()
        self._open: OrderedDict[int, tuple[Any, dict[str, int]]] = OrderedDict()
        self._lock = threading.Lock()
        for shard in range(len(self.folder.shards)):
            if not self.folder.file(shard).is_file():
                raise self._error(shard, "there is no such file")

    @cached_property
    def prompts(self) -> list[str]:
        """One an item."""
        found: list[str] = self._columns["prompt"].to_pylist()
        return found

    def read(self, item: int) -> dict[str, Tensor]:
        """The tensors of an item, float32; rows of zeros that were cut off are there again.

        Raises:
            ZooError: the item's bytes are not those that were written.
        """
        shard = self._columns["shard"][item].as_py()
        packed: dict[str, Tensor] = {}
        try:
            with self._lock:
                file, full = self._shard(shard)
                for name in full:
                    first = self._columns[f"{name}.first"][item].as_py()
                    rows = self._columns[f"{name}.rows"][item].as_py()
                    packed[name] = file.get_slice(name)[first : first + rows]
        except Exception as error:  # safetensors raises several kinds for a damaged file
            raise self._error(shard, f"incomplete or corrupt ({reason(error)})") from None
        if crc_of(packed, full) != self._columns["crc"][item].as_py():
            place = item - self.folder.shards[shard].start
            raise self._error(shard, f"its item {place} has changed since it was written")
        found = {}
        for name, rows in full.items():
            value = packed[name].float()
            if len(value) < rows:
                padding = value.new_zeros(rows - len(value), *value.shape[1:])
                value = torch.cat([value, padding])
            found[name] = value
        return found

    def _shard(self, shard: int) -> tuple[Any, dict[str, int]]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        file = safe_open(self.folder.file(shard), framework="pt")
        self._open[shard] = file, packed_metadata(file)["full"]
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
        return self._open[shard]

    def _index(self) -> Any:
        import pyarrow.parquet

        file = self.path / INDEX
        if not file.is_file():
            raise ZooError(
                f"{self.path}: is not finished (it has no {INDEX}); go on with the same 'salt-zoo "
                f"prepare {self.kind}' command"
            )
        try:
            table = pyarrow.parquet.read_table(file)
            mine = (table.schema.metadata or {}).get(b"header", b"").decode()
        except Exception as error:  # pyarrow raises many kinds for a damaged file
            raise self._index_error(f"incomplete or corrupt ({reason(error)})") from None
        if mine != self.folder.key or table.num_rows != self.header["count"]:
            raise self._index_error("belongs to other shards")
        if missing := {"prompt", "shard", "crc"} - set(table.column_names):
            raise self._index_error(f"incomplete or corrupt (it lacks {min(missing)!r})")
        if digest(table["prompt"].to_pylist()) != self.header.get("prompts"):
            raise self._index_error("its prompts are not those that were prepared")
        return {name: table[name].combine_chunks() for name in table.column_names}

    def _index_error(self, why: str) -> ZooError:
        return ZooError(
            f"{self.path / INDEX}: {why}; delete it and run the same 'salt-zoo prepare "
            f"{self.kind}' command"
        )

    def _error(self, shard: int, why: str) -> ZooError:
        return ZooError(
            f"{self.folder.file(shard)}: {why}; make it again with the same 'salt-zoo prepare "
            f"{self.kind}' command"
        )
