"""Rotary positions for any frames: an offset for cached generation, two copies for teacher forcing.

As in Wan, a head's width is split over frame, row and column, and angles are in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def rotary_table(
    frames: Sequence[int], rows: int, columns: int, width: int, device: Any, theta: float = 10000.0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[len(frames) * rows * columns, 1, width / 2]`, float32.

    `frames` are the positions of the frames, in any order; tokens are frame-major.
    """
    speeds, within = _within_frame(rows, columns, width, theta)
    along = torch.tensor(frames, dtype=torch.float64)[:, None] * speeds
    tokens = rows * columns
    angles = torch.empty(len(frames), tokens, width // 2, dtype=torch.float64)
    angles[..., : len(speeds)] = along[:, None]
    angles[..., len(speeds) :] = within
    angles = angles.flatten(0, 1)[:, None]
    return angles.cos().float().to(device), angles.sin().float().to(device)


@functools.lru_cache(maxsize=16)
def _within_frame(rows: int, columns: int, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """The angle of one frame, by channel, and the angles of its tokens' rows and columns."""
    side = 2 * (width // 6)
    with torch.inference_mode(False):  # training may follow
        frame, row, column = (
            theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
            for size in (width - 2 * side, side, side)
        )
        down = torch.arange(rows, dtype=torch.float64)[:, None] * row
        across = torch.arange(columns, dtype=torch.float64)[:, None] * column
        within = torch.cat([down.repeat_interleave(columns, 0), across.repeat(rows, 1)], dim=1)
    return frame, within


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """`x` `[B, N, heads, width]`, each pair of channels turned by the table's angles."""
    cosine, sine = table
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return torch.stack(turned, dim=-1).flatten(-2).type_as(x)
