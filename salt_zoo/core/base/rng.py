"""Random streams keyed by what they are for.

Every draw comes from a generator of its own, seeded by a hash of (seed, purpose, indices), on the
CPU. Nothing depends on the order of the draws, so two arms of a study see the same prompts and the
same noise, a resumed run sees what an uninterrupted one would, adding a draw changes no other, and
all devices agree. Tensors are drawn row by row, each row keyed by its global index in the batch:
how a batch is split over processes or accumulation steps does not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from salt_zoo.core.base.transfers import send

Key = str | int


@dataclass(frozen=True)
class KeyedRNG:
    """Draws for the rows `rows` (global indices in the batch) under a `seed` and a `scope`."""

    seed: int
    scope: tuple[Key, ...] = ()
    rows: Sequence[int] = range(0)
    device: torch.device | str = "cpu"

    def at(self, *scope: Key) -> KeyedRNG:
        """The same rows one scope deeper, for instance `rng.at("data")`."""
        return replace(self, scope=(*self.scope, *scope))

    def for_rows(self, rows: Sequence[int]) -> KeyedRNG:
        return replace(self, rows=rows)

    def generator(self, *key: Key) -> torch.Generator:
        """A CPU generator that only `(seed, scope, key)` decides."""
        return torch.Generator().manual_seed(self._seed(key))

    def _seed(self, key: tuple[Key, ...]) -> int:
        text = f"{self._start}{key!r})".encode()
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    @cached_property
    def _start(self) -> str:
        """Of the text `repr((seed, scope, key))` what all keys have in common."""
        return f"({self.seed!r}, {self.scope!r}, "

    def _of_rows(self, key: tuple[Key, ...]) -> Iterator[torch.Generator]:
        """The generator of each row, in turn: one, seeded anew."""
        generator = torch.Generator()
        for row in self.rows:
            yield generator.manual_seed(self._seed((*key, row)))

    def randn(self, shape: Sequence[int], *key: Key, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal rows `[len(rows), *shape]` on the device."""
        drawn = torch.empty(len(self.rows), *shape)
        for place, generator in zip(drawn.unbind(), self._of_rows(key), strict=True):
            place.normal_(generator=generator)
        return send(drawn, self.device).to(dtype)

    def rand(self, *key: Key) -> Tensor:
        """One number in [0, 1) a row: `[len(rows)]`."""
        drawn = torch.empty(len(self.rows))
        for place, generator in zip(drawn.unbind(), self._of_rows(key), strict=True):
            place.uniform_(generator=generator)
        return send(drawn, self.device)

    def randint(self, high: int, *key: Key) -> list[int]:
        """One integer in [0, high) a row, as Python numbers."""
        drawn = torch.empty(len(self.rows), dtype=torch.int64)
        for place, generator in zip(drawn.unbind(), self._of_rows(key), strict=True):
            place.random_(high, generator=generator)
        return [int(number) for number in drawn.tolist()]

    def shared_randint(self, high: int, *key: Key) -> int:
        """One integer in [0, high) for all rows and all processes (an exit step, say)."""
        return int(torch.randint(high, (), generator=self.generator(*key, "shared")))

    def shared_rand(self, *key: Key) -> float:
        """One number in [0, 1) for all rows and all processes."""
        return float(torch.rand((), generator=self.generator(*key, "shared")))


def seed_torch(seed: int) -> None:
    """Seed torch's own generators, for the weights of modules that draw from them.

    Without an accelerator `torch.manual_seed` takes milliseconds, as it writes down for each kind
    of device from where it was called; the CPU's generator is all that there is then.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def step_rng(
    seed: int, role: str, step: int, update: int, rows: Sequence[int], device: torch.device | str
) -> KeyedRNG:
    """The draws of one update of a role; `update` counts those of the role in the training step.

    Updates of other roles are not in the key: runs that differ in how often the fake score is
    trained share the prompts and the noise of the student.
    """
    return KeyedRNG(seed, ("train", role, step, update), rows, device)
