"""Rotary positions for any frames: an offset for cached generation, two copies for teacher forcing.

As in Wan, a head's width is split over frame, row and column, and angles are in float64.
"""

from __future__ import annotations

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
    side = 2 * (width // 6)
    parts = []
    for axis, (places, size) in enumerate(
        (
            (torch.tensor(list(frames)), width - 2 * side),
            (torch.arange(rows), side),
            (torch.arange(columns), side),
        )
    ):
        speeds = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = places.to(torch.float64)[:, None] * speeds
        view = [1, 1, 1, angles.shape[1]]
        view[axis] = len(places)
        parts.append(angles.view(view).expand(len(frames), rows, columns, -1))
    angles = torch.cat(parts, dim=-1).flatten(0, 2)[:, None]
    return angles.cos().float().to(device), angles.sin().float().to(device)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """`x` `[B, N, heads, width]`, each pair of channels turned by the table's angles."""
    cosine, sine = table
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return torch.stack(turned, dim=-1).flatten(-2).type_as(x)
