"""Reading golden cases, and comparing with them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

#: Relative L2 tolerances: two CPU kernels and thread counts differ by a tenth of this.
FORWARD, GRADIENT = 1e-5, 5e-5


class WrongFolder(Exception):
    """The folder is not one of goldens; one line that says why."""


@dataclass(frozen=True)
class Check:
    """One compared quantity."""

    case: str
    quantity: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # NaN does not pass


@dataclass(frozen=True)
class Skipped:
    """A quantity of a golden that is not compared, and why."""

    case: str
    quantity: str
    reason: str


class Golden:
    """One case: its tensors by key, and the facts of its JSON."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.looked_up: set[str] = set()
        self.tensors = load(folder / f"{name}.safetensors")
        path = folder / f"{name}.json"
        try:
            self.facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WrongFolder(f"{path}: cannot be read ({_line(error)})") from None

    def __getitem__(self, key: str) -> Tensor:
        self.looked_up.add(key)
        try:
            return self.tensors[key]
        except KeyError:
            raise WrongFolder(f"{self.folder / self.name}.safetensors: lacks {key!r}") from None

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def compare(self, key: str, found: Tensor, tolerance: float = FORWARD) -> Iterator[Check]:
        """A check against the tensor `key`, if the golden holds it."""
        if key in self.tensors:
            error = relative_error(found, self[key])
            yield Check(self.name, key.removeprefix("out/"), error, tolerance)

    def left_over(self) -> Iterator[Skipped]:
        """The results that nothing was compared with."""
        for key in sorted(self.tensors.keys() - self.looked_up):
            if not key.startswith("in/"):
                reason = "nothing here computes this quantity"
                yield Skipped(self.name, key.removeprefix("out/"), reason)


def load(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise WrongFolder(f"{path}: cannot be read ({_line(error)})") from None


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """`|found - wanted| / |wanted|` in L2 and float64; absolute where `wanted` is all 0."""
    if found.numel() != wanted.numel():
        return math.inf
    wanted = wanted.double().reshape(-1)
    difference = (found.detach().double().reshape(-1) - wanted).norm().item()
    size = wanted.norm().item()
    return difference / size if size else difference


def video(x: Tensor) -> Tensor:
    """`[B, F, C, H, W]` of the released pipelines as `[B, C, F, H, W]`, and back."""
    return x.transpose(1, 2)


def as_tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
