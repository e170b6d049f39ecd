"""Videos of files as training has them: frames at a rate, scaled and cut to a size."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from salt_zoo.core.base.errors import ZooError, reason

#: Seconds: Matroska and WebM round times to the millisecond.
ROUNDING = 1e-3


def read_video(
    file: BinaryIO, named: str, frames: int, frame_rate: float, size: tuple[int, int], channels: int
) -> Tensor:
    """The beginning of a video, in [0, 1]: `[channels, frames, height, width]`.

    At each time of `frame_rate` the frame is taken that is shown then. Frames are scaled (with
    antialiasing) until they cover `size` and cut at their centre.

    Args:
        named: the video in messages.
        size: height and width in pixels.
        channels: 3, or 1 for grey values.

    Raises:
        ZooError: it cannot be decoded, or is too short.
    """
    import av

    taken: list[np.ndarray] = []

    def take(shown: np.ndarray | None, until: float) -> None:
        """All that is wanted while one frame is shown."""
        while shown is not None and len(taken) < min(frames, (until - ROUNDING) * frame_rate):
            taken.append(shown)

    try:
        with av.open(file, mode="r") as container:
            stream = container.streams.video[0]
            shown: np.ndarray | None = None
            began, ended = None, 0.0
            for frame in container.decode(stream):
                began = frame.time if began is None else began
                now = float(frame.time - began)
                take(shown, now)
                if len(taken) == frames:
                    break
                shown = frame.to_ndarray(format="gray" if channels == 1 else "rgb24")
                ended = now + 1 / float(stream.average_rate or frame_rate)
            take(shown, ended)
    except Exception as error:  # av raises many kinds for a damaged file
        raise ZooError(f"{named}: cannot be decoded as a video ({reason(error)})") from None
    if len(taken) < frames:
        raise ZooError(
            f"{named}: has {len(taken)} frames at {frame_rate:g} a second and {frames} are needed; "
            "leave it out, or prepare shorter videos"
        )
    pixels = torch.from_numpy(np.stack(taken))
    pixels = pixels[None] if channels == 1 else pixels.permute(3, 0, 1, 2)
    return cover(pixels.float() / 255, size)


def cover(video: Tensor, size: tuple[int, int]) -> Tensor:
    """`[C, F, h, w]` scaled until it covers `size`, and its centre `[C, F, *size]`."""
    height, width = size
    scale = max(height / video.shape[2], width / video.shape[3])
    inner = max(height, round(video.shape[2] * scale)), max(width, round(video.shape[3] * scale))
    if inner != tuple(video.shape[2:]):
        scaled = F.interpolate(video.transpose(0, 1), inner, mode="bilinear", antialias=True)
        video = scaled.transpose(0, 1)
    top, left = (inner[0] - height) // 2, (inner[1] - width) // 2
    return video[:, :, top : top + height, left : left + width].clamp(0, 1)
