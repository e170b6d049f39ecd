"""Rotary positions for any frames: an offset for cached generation, two copies for teacher forcing.

As in Wan, a head's width is split over frame, row and column, and angles are in float64.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from salt_zoo.core.base.transfers import send


def rotary_table(
    frames: Sequence[int],
    rows: int,
    columns: int,
    width: int,
    device: torch.device | str,
    theta: float = 10000.0,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[len(frames) * rows * columns, 1, width / 2]`, float32, on `device`.

    `frames` are the positions of the frames, in any order; tokens are frame-major. A channel turns
    by the frame or by the place in it, never by both, so that only the frames' are worked out anew.
    """
    place = torch.device(device)
    along = _of_frames(tuple(frames), width, theta, place)
    within = _of_tokens(rows, columns, width, theta, place)
    made = []
    for frame, token in zip(along, within, strict=True):
        table = torch.empty(len(frames), rows * columns, 1, width // 2, device=place)
        table[..., : frame.shape[1]] = frame[:, None, None]
        table[..., frame.shape[1] :] = token[:, None]
        made.append(rearrange(table, "frames tokens 1 half -> (frames tokens) 1 half"))
    return made[0], made[1]


@contextlib.contextmanager
def _to_keep() -> Iterator[None]:
    """Tensors made inside serve whatever follows: training after sampling, and after a plan, which
    passes networks with fake tensors."""
    with torch.inference_mode(False), unset_fake_temporarily():
        yield


def _speeds(size: int, theta: float) -> Tensor:
    return theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)


@functools.lru_cache(maxsize=64)
def _of_frames(
    frames: tuple[int, ...], width: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The channels that turn by the frame: `[len(frames), n]`."""
    with _to_keep():
        speeds = _speeds(width - 4 * (width // 6), theta)
        angles = torch.tensor(frames, dtype=torch.float64)[:, None] * speeds
        return send(angles.cos().float(), device), send(angles.sin().float(), device)


@functools.lru_cache(maxsize=16)
def _of_tokens(
    rows: int, columns: int, width: int, theta: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The channels that turn by row and column: `[rows * columns, n]`."""
    with _to_keep():
        speeds = _speeds(2 * (width // 6), theta)
        down = torch.arange(rows, dtype=torch.float64)[:, None] * speeds
        across = torch.arange(columns, dtype=torch.float64)[:, None] * speeds
        down = repeat(down, "rows n -> (rows columns) n", columns=columns)
        across = repeat(across, "columns n -> (rows columns) n", rows=rows)
        angles = torch.cat([down, across], dim=1)
        return send(angles.cos().float(), device), send(angles.sin().float(), device)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """`x` `[B, N, heads, width]`, each pair of channels turned by the table's angles."""
    cosine, sine = table
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return torch.stack(turned, dim=-1).flatten(-2).type_as(x)
