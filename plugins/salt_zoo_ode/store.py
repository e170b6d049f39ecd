"""A folder of stored trajectories: a header in JSON and shards in safetensors.

Every shard is written whole or not at all, and holds the rows of one batch in their order; which
trajectory a row is follows from the header alone, so that what is missing can be made later.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.core.protocols import Condition
from salt_zoo.io.differences import difference
from salt_zoo.io.files.regular import check_regular
from salt_zoo.io.files.storage import atomic_file, digest, file_digest, prepare_folder, write_json

HEADER = "trajectories.json"
FORMAT = 1
#: What the header has where trajectories begin from images: digests of what encoded them.
IMAGES = "image encoder"
#: What the names of a shard's tensors begin with that are part of the condition.
_FIRST = "first_frame."
#: What the names of the checksums of their rows begin with.
_CRC = "crc."
_AGAIN = "delete it and make it again with the same 'salt-zoo prepare trajectories' command"


class _Header(BaseModel):
    """What is looked at of a header."""

    model_config = ConfigDict(strict=True)

    batch_size: Annotated[int, Field(ge=1)]
    dataset: dict[str, Any]
    prompts: list[str]
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=5, max_length=5)]
    times: list[float]


def crc_of_rows(value: Tensor) -> Tensor:
    """The CRC-32 of the bytes of each row, `[rows]`."""
    flat = value.contiguous().view(torch.uint8).reshape(len(value), -1).numpy()
    return torch.tensor([zlib.crc32(row.tobytes()) for row in flat])


@dataclass(frozen=True)
class Shard:
    """What a shard holds.

    Attributes:
        trajectories: `[rows, K, C, F, H, W]`.
        first_frame: what `Backbone.encode_images` made of each row's first frame; empty for a
            backbone that generates from prompts alone.
    """

    trajectories: Tensor
    first_frame: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class TrajectoryFolder:
    """A folder and what its header says.

    The header has `format`, `times` (falling, of all states but the endpoint), `shape`
    `[K, C, F, H, W]` of a trajectory, `batch_size` (rows of a shard), `prompts` (one a row), and
    how they were made, of which `dataset` (by name, with its options) and `image encoder` (where
    each trajectory has its first frame's condition) are looked at here.
    """

    path: Path
    header: Mapping[str, Any]

    kind = "trajectories"

    @property
    def count(self) -> int:
        return len(self.header["prompts"])

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(self.header["times"])

    @cached_property
    def shards(self) -> list[range]:
        """The rows of each shard."""
        size = self.header["batch_size"]
        return [range(first, min(first + size, self.count)) for first in range(0, self.count, size)]

    @cached_property
    def _digest(self) -> str:
        return digest(self.header)

    def file(self, shard: int) -> Path:
        return self.path / f"{shard:06d}.safetensors"

    def write(self, shard: int, content: Shard) -> None:
        """Keep a shard: trajectories that are float16 as they are, everything else as float32."""
        states = content.trajectories
        wanted = (len(self.shards[shard]), *self.header["shape"])
        if tuple(states.shape) != wanted:
            raise ValueError(f"trajectories {tuple(states.shape)} should be {wanted}")
        if bool(content.first_frame) != (IMAGES in self.header):
            raise ValueError("first frames should be there exactly where the header has an encoder")
        if states.dtype != torch.float16:
            states = states.float()
        tensors = {"trajectories": states.cpu().contiguous()}
        for name, value in content.first_frame.items():
            tensors[f"{_FIRST}{name}"] = value.float().cpu().contiguous()
        tensors |= {f"{_CRC}{name}": crc_of_rows(value) for name, value in tensors.items()}
        with atomic_file(self.file(shard)) as draft:
            save_file(tensors, draft, metadata={"header": self._digest})

    def has(self, shard: int) -> bool:
        """Whether a shard is there, whole and of this header."""
        return self.file(shard).is_file() and not self._fault(shard)

    def missing(self) -> list[int]:
        """The shards that are not there, or not whole."""
        return [shard for shard in range(len(self.shards)) if not self.has(shard)]

    def done(self) -> int:
        """How many trajectories are there."""
        there = [rows for shard, rows in enumerate(self.shards) if self.file(shard).is_file()]
        return sum(map(len, there))

    def check(self) -> None:
        """A ZooError unless every shard is there, whole and of this header."""
        there = [shard for shard in range(len(self.shards)) if self.file(shard).is_file()]
        if len(there) < len(self.shards):
            made = sum(len(self.shards[shard]) for shard in there)
            raise ZooError(
                f"{self.path}: holds {made} of {self.count} trajectories; make the rest with the "
                "same 'salt-zoo prepare trajectories' command"
            )
        for shard in there:
            if fault := self._fault(shard):
                raise ZooError(f"{self.file(shard)}: {fault}; {_AGAIN}")

    def read(self, rows: Sequence[int]) -> Tensor:
        """Trajectories `[len(rows), K, C, F, H, W]`, float32."""
        return torch.stack([self._row(row)["trajectories"].float() for row in rows])

    def first_frames(self, rows: Sequence[int]) -> Condition:
        """The condition of some rows' first frames, each `[len(rows), ...]`, float32; empty where
        they begin from none."""
        if IMAGES not in self.header:
            return {}
        found: dict[str, list[Tensor]] = {}
        for row in rows:
            for name, value in self._row(row, _FIRST).items():
                found.setdefault(name.removeprefix(_FIRST), []).append(value)
        return {name: torch.stack(values) for name, values in found.items()}

    def _row(self, row: int, start: str = "trajectories") -> dict[str, Tensor]:
        """The tensors of a row whose names begin with `start`.

        Raises:
            ZooError: they are not those that were written. (Shards of older versions do not tell.)
        """
        shard, place = divmod(row, self.header["batch_size"])
        with safe_open(self.file(shard), framework="pt") as file:
            names = set(file.keys())
            found = {n: file.get_slice(n)[place : place + 1] for n in names if n.startswith(start)}
            for name, value in found.items():
                crc = f"{_CRC}{name}"
                if crc in names and not torch.equal(
                    crc_of_rows(value), file.get_slice(crc)[place : place + 1]
                ):
                    raise ZooError(
                        f"{self.file(shard)}: its row {place} has changed since it was written; "
                        f"{_AGAIN}"
                    )
        return {name: value[0] for name, value in found.items()}

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the header and of every shard's bytes."""
        files = [file_digest(self.file(shard)) for shard in range(len(self.shards))]
        return digest([self.header, files])

    def _fault(self, shard: int) -> str | None:
        """What is wrong with a shard that is there."""
        try:
            with safe_open(self.file(shard), framework="pt") as file:
                made_for = (file.metadata() or {}).get("header")
                shape = file.get_slice("trajectories").get_shape()
                images = any(name.startswith(_FIRST) for name in file.keys())  # noqa: SIM118
        except Exception as error:  # safetensors raises several kinds for a damaged file
            return f"damaged ({reason(error)})"
        if made_for != self._digest:
            return f"belongs to another {HEADER}"
        if shape != [len(self.shards[shard]), *self.header["shape"]]:
            return f"has trajectories {shape[1:]} instead of {list(self.header['shape'])}"
        if images != (IMAGES in self.header):
            return "has no first frames, which its header tells of"
        return None


def open_folder(path: Path, header: Mapping[str, Any]) -> TrajectoryFolder:
    """A new folder with this header, or the one that is there to go on with.

    Raises:
        ZooError: it cannot be written, or holds trajectories that were made otherwise.
    """
    header = json.loads(json.dumps({"format": FORMAT, **header}))
    prepare_folder(path)
    if (path / HEADER).exists():
        there = read_folder(path).header
        if found := difference(there, header):
            raise ZooError(
                f"{path}: holds trajectories of another configuration ({found}); choose "
                "another folder, or delete this one"
            )
    else:
        write_json(path / HEADER, header)
    return TrajectoryFolder(path, header)


def read_folder(path: Path) -> TrajectoryFolder:
    """The folder with its header; whether its shards are there is for `check` to say.

    Raises:
        ZooError: there is no header, or it is not one of this version.
    """
    file = path / HEADER
    if not path.is_dir():
        raise ZooError(
            f"{path}: there is no such folder; make it with "
            f"'salt-zoo prepare trajectories --out {path}'"
        )
    try:
        check_regular(file, "make the folder again")
        header = json.loads(file.read_text(encoding="utf-8"))
        version = header["format"]
    except FileNotFoundError:
        raise ZooError(f"{path}: holds no trajectories (it has no {HEADER})") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ZooError(f"{file}: damaged ({reason(error)}); make the folder again") from None
    if version != FORMAT:
        raise ZooError(f"{file}: its format is {version}, and this version reads {FORMAT}")
    if missing := _Header.model_fields.keys() - header.keys():
        raise ZooError(f"{file}: damaged (it lacks {min(missing)!r}); make the folder again")
    try:
        _Header.model_validate(header)
    except ValidationError as error:
        key, why = error.errors()[0]["loc"], error.errors()[0]["msg"]
        where = ".".join(map(str, key))
        raise ZooError(f"{file}: damaged ({where}: {why}); make the folder again") from None
    return TrajectoryFolder(path, header)
