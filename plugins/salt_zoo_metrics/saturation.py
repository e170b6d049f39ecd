"""Over-saturation: how much of the picture sticks at the ends of the scale."""

from __future__ import annotations

import torch
from torch import Tensor

from salt_zoo.core.protocols import Direction, MetricDefaults
from salt_zoo.evaluation.videos import Videos
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import NoOptions

#: Values within [LOW, HIGH] count as rendered, all others as clipped or about to be.
LOW, HIGH = 0.02, 0.98


def saturation(pixels: Tensor) -> Tensor:
    """Share of pixel values outside [0.02, 0.98], each channel counted by itself.

    Guidance at a high scale pushes values to the ends (and beyond) and so raises it.

    Args:
        pixels: `[N, C, F, height, width]`, nominally in [0, 1], not clamped.

    Returns:
        `[N]` in [0, 1]; NaN for videos that hold a NaN.
    """
    return torch.stack([_share(video) for video in pixels])


def _share(video: Tensor) -> Tensor:
    inside = (video >= LOW) & (video <= HIGH)
    share = 1 - inside.float().mean()
    return torch.where(video.isnan().any(), torch.nan, share)  # a comparison hides what is NaN


class Saturation(MetricDefaults):
    """Without a direction: how many black or white pixels are right depends on the scene.

    Compare it with the rows of the teacher and of real videos: digits on black have most pixels at
    0, rightly.
    """

    version = 1
    direction: Direction = "none"
    mean = True
    bounds = (0.0, 1.0)

    def __init__(self, config: NoOptions, zoo: Zoo) -> None:
        pass

    def measure(self, videos: Videos) -> Tensor:
        return saturation(videos.pixels)

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())
