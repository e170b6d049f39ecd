"""How much neighbouring frames differ: too much is flicker, nothing is a still.

The two metrics are two readings of one number: at its default gap `motion-magnitude` is 1 minus
`temporal-flickering` but for the rounding to 8 bits. Read together they keep a collapse to still
videos, which never flicker, from passing for quality.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.protocols import Direction, MetricDefaults, MetricKind
from salt_zoo.evaluation.videos import Videos
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import NoOptions
from salt_zoo_metrics.frames import eight_bit


def temporal_flickering(pixels: Tensor) -> Tensor:
    """`(255 - mean absolute difference of adjacent 8-bit frames) / 255`, in [0, 1].

    The dimension "temporal flickering" of VBench (arXiv 2311.17982): the paper names the mean
    absolute difference of frames in words, the scale is that of its code (`cal_score`). VBench
    applies it to decoded video files; here no codec lies between.

    Args:
        pixels: `[N, C, F, height, width]` in [0, 1], clamped.

    Returns:
        `[N]`; NaN for videos of one frame.
    """
    # one video at a time: all of them once more may not fit into memory
    changes = [eight_bit(video).diff(dim=1).abs().mean() for video in pixels]
    return (255 - torch.stack(changes)) / 255


def motion_magnitude(pixels: Tensor, gap: int = 1) -> Tensor:
    """Mean absolute difference of frames that lie `gap` frames apart, in units of full scale.

    Args:
        pixels: `[N, C, F, height, width]` in [0, 1], clamped.

    Returns:
        `[N]` in [0, 1]; NaN for videos of `gap` or fewer frames.
    """
    shown = (video.float().clamp(0, 1) for video in pixels)
    return torch.stack([(v[:, gap:] - v[:, :-gap]).abs().mean() for v in shown])


class TemporalFlickering(MetricDefaults):
    """VBench's temporal flickering. A diagnostic: a still video has the best value, 1."""

    version = 1
    direction: Direction = "higher"
    kind: MetricKind = "diagnostic"
    mean = True
    bounds = (0.0, 1.0)

    def __init__(self, config: NoOptions, zoo: Zoo) -> None:
        pass

    def measure(self, videos: Videos) -> Tensor:
        return temporal_flickering(videos.pixels)

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())


class MotionMagnitudeConfig(StrictModel):
    """Options of `motion-magnitude`."""

    #: Frames from one frame to the one it is compared with.
    gap: Annotated[int, Field(ge=1)] = 1


class MotionMagnitude(MetricDefaults):
    """A stand-in for VBench's dynamic degree without optical flow: it counts any change, flicker
    too, so that neither more nor less of it is better."""

    version = 1
    Config = MotionMagnitudeConfig
    direction: Direction = "none"
    mean = True
    bounds = (0.0, 1.0)

    def __init__(self, config: MotionMagnitudeConfig, zoo: Zoo) -> None:
        self.config = config

    def measure(self, videos: Videos) -> Tensor:
        return motion_magnitude(videos.pixels, self.config.gap)

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())
