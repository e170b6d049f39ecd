"""Frames as the published metrics see them: 8-bit, three channels, a few of a video."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def eight_bit(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] of any shape, clamped and rounded to 0, 1, ..., 255, as float32.

    Not as bytes: a pixel that is not a number stays one, and so does the score of its video.
    """
    return (pixels.float().clamp(0, 1) * 255).round()


def rgb(video: Tensor) -> Tensor:
    """Frames `[F, 3, height, width]` of a video `[1 or 3, F, height, width]`; grey is repeated."""
    return rearrange(video, "c f h w -> f c h w").expand(-1, 3, -1, -1)


def spread(frames: int, count: int | None) -> Tensor:
    """Indices of `count` of the frames, evenly spread from the first to the last; None: all.

    >>> spread(9, 3).tolist(), spread(9, 1).tolist(), spread(2, 8).tolist()
    ([0, 4, 8], [4], [0, 1])
    """
    if count is None or count >= frames:
        return torch.arange(frames)
    if count == 1:
        return torch.tensor([(frames - 1) // 2])
    return torch.linspace(0, frames - 1, count).round().long()
