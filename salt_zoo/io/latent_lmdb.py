"""Latents and prompts in LMDB, as the scripts of CausVid and Self Forcing write them.

An environment has `latents_shape` (numbers in text: rows, then the shape of one), and for every row
`latents_{row}_data` (float16) and `prompts_{row}_data` (UTF-8); Self-Forcing-Plus adds
`img_{row}_data`, the first frame as bytes `[height, width, 3]`. The other `_shape` keys are not
read: some scripts write the latents' shape under every name.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core.base.errors import MissingPackage, ZooError, reason, shown
from salt_zoo.io.files.regular import expanded
from salt_zoo.io.files.storage import digest

#: The file of an environment.
DATA = "data.mdb"
_HOW = "copy it again, or write it again with the script that made it"


@dataclass(frozen=True)
class _Environment:
    """One open environment.

    Attributes:
        first: the place of its row 0 among the rows of all.
        shape: of a row's latents.
    """

    path: Path
    open: Any
    first: int
    rows: int
    shape: tuple[int, ...]

    def value(self, key: str) -> bytes | None:
        try:
            with self.open.begin() as transaction:
                found: bytes | None = transaction.get(key.encode())
                return found
        except Exception as error:  # lmdb raises a class for each kind of damage
            raise ZooError(f"{self.path}: {key}: damaged ({reason(error)}); {_HOW}") from None

    def needed(self, key: str) -> bytes:
        found = self.value(key)
        if found is None:
            raise ZooError(f"{self.path}: has no {key} of {self.rows} rows; {_HOW}")
        return found


@dataclass(frozen=True)
class LatentLmdb:
    """The rows of an environment, or of several in the order of their names.

    Attributes:
        shape: of a row's latents: `(F, C, H, W)`, or with K states `(K, F, C, H, W)`.
    """

    path: Path
    environments: tuple[_Environment, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.environments[0].shape

    def __len__(self) -> int:
        return sum(one.rows for one in self.environments)

    def prompts(self) -> list[str]:
        """One a row; reads them all.

        Raises:
            ZooError: one is not there, or no text.
        """
        return [self._prompt(row) for row in range(len(self))]

    def latents(self, row: int) -> Tensor:
        """A row's latents `[*shape]`, float16, as they are stored.

        Raises:
            ZooError: they are not there, not whole or not finite.
        """
        one, place = self._find(row)
        key = f"latents_{place}_data"
        value = one.needed(key)
        if len(value) != 2 * math.prod(one.shape):
            raise ZooError(
                f"{one.path}: {key} has {len(value)} bytes, and latents_shape {list(one.shape)} in "
                f"float16 needs {2 * math.prod(one.shape)}; {_HOW}"
            )
        found = torch.frombuffer(bytearray(value), dtype=torch.float16).reshape(one.shape)
        if not found.isfinite().all():
            raise ZooError(f"{one.path}: {key} holds numbers that are not finite; {_HOW}")
        return found

    def image(self, row: int, height: int, width: int) -> Tensor:
        """A row's first frame `[3, height, width]` in [0, 1].

        Raises:
            ZooError: there is none, or of another size.
        """
        one, place = self._find(row)
        key = f"img_{place}_data"
        value = one.value(key)
        if value is None:
            raise ZooError(
                f"{one.path}: has no first frame {key}, which the backbone generates from; choose "
                "a size that generates from prompts alone, or an LMDB with images"
            )
        if len(value) != 3 * height * width:
            raise ZooError(
                f"{one.path}: {key} has {len(value)} bytes, and {width}x{height} pixels of 3 bytes "
                f"have {3 * height * width}; set height and width in backbone.options"
            )
        pixels = torch.frombuffer(bytearray(value), dtype=torch.uint8)
        return pixels.reshape(height, width, 3).permute(2, 0, 1).float() / 255

    def fingerprint(self) -> str:
        """16 hexadecimal digits of the environments' names, sizes and numbers of rows; not of what
        they hold, which can be terabytes."""
        return digest(
            [
                [one.path.name, (one.path / DATA).stat().st_size, one.rows, one.shape]
                for one in self.environments
            ]
        )

    def _prompt(self, row: int) -> str:
        one, place = self._find(row)
        key = f"prompts_{place}_data"
        try:
            return one.needed(key).decode("utf-8")
        except UnicodeDecodeError:
            raise ZooError(f"{one.path}: {key} is not text in UTF-8; {_HOW}") from None

    def _find(self, row: int) -> tuple[_Environment, int]:
        one = self.environments[bisect_right(self.environments, row, key=lambda e: e.first) - 1]
        return one, row - one.first


@contextmanager
def open_lmdb(place: Path, key: str) -> Iterator[LatentLmdb]:
    """An LMDB folder (with a `data.mdb`), or a folder of such folders; nothing is written to it.

    Args:
        key: of the configuration that names it, for messages.

    Raises:
        ZooError: there is none, or one is damaged, empty, or of another form than the others.
        MissingPackage: lmdb is not installed.
    """
    try:
        import lmdb
    except ImportError:
        raise MissingPackage(
            f"{key}: reading it needs lmdb, which is not installed; run: pip install "
            "'salt-zoo[lmdb]'"
        ) from None

    place = expanded(place)
    with ExitStack() as held:
        found: list[_Environment] = []
        for path in _folders(place, key):
            file = path / DATA
            try:
                # its lock file would be written, and nobody writes to what is read here
                opened = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
            except Exception as error:  # lmdb raises a class for each kind of damage
                raise ZooError(
                    f"{file}: cannot be opened as an LMDB ({reason(error)}); {_HOW}"
                ) from None
            held.callback(opened.close)
            # a page that is missing at the end would end the process with a bus error
            size, pages = file.stat().st_size, opened.info()["last_pgno"] + 1
            if size < pages * opened.stat()["psize"]:
                raise ZooError(
                    f"{file}: is cut off: it has {size} of {pages * opened.stat()['psize']} bytes; "
                    f"{_HOW}"
                )
            first = found[-1].first + found[-1].rows if found else 0
            environment = _Environment(path, opened, first, 0, ())
            rows, *shape = _shape(environment)
            found.append(_Environment(path, opened, first, rows, tuple(shape)))
            if found[-1].shape != found[0].shape:
                raise ZooError(
                    f"{path}: its latents are {shape}, and those of {found[0].path.name} "
                    f"{list(found[0].shape)}; give folders of one shape"
                )
        yield LatentLmdb(place, tuple(one for one in found if one.rows) or tuple(found[:1]))


def _folders(place: Path, key: str) -> list[Path]:
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "there is no such folder"
        raise ZooError(f"{place}: {what}; see {key}")
    if (place / DATA).is_file():
        return [place]
    found = sorted(path.parent for path in place.glob(f"*/{DATA}"))
    if not found:
        raise ZooError(f"{place}: holds no LMDB (a {DATA}, or folders that have one); see {key}")
    return found


def _shape(environment: _Environment) -> list[int]:
    """The number of rows, then the shape of one."""
    value = environment.value("latents_shape")
    if value is None:
        raise ZooError(
            f"{environment.path}: has no latents_shape, which is written last: an LMDB of another "
            f"form, or one that was not finished; {_HOW}"
        )
    try:
        numbers = [int(word) for word in value.decode().split()]
    except ValueError:
        numbers = []
    if len(numbers) not in (5, 6) or min(numbers) < 0 or 0 in numbers[1:]:
        raise ZooError(
            f"{environment.path}: latents_shape is {shown(value.decode(errors='replace'))}; "
            "expected rows, states (if there are several), frames, channels, height and width"
        )
    return numbers
