"""Videos as files to look at: MP4, animated GIF, or a PNG strip of frames."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange, repeat
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.storage import atomic_file
from salt_zoo.io.videos.gif import gif

ENDINGS = (".mp4", ".gif", ".png")

#: Smaller videos are enlarged to at least this many pixels a side, so that a player shows them.
SMALLEST = 128
#: A strip shows at most this many frames, evenly spread.
STRIP = 9
GAP = 4
#: The most pixels a side that a format holds: libx264's, and those of two bytes.
LARGEST = {".mp4": 16384, ".gif": 65535}


def check_ending(path: Path) -> str:
    """The ending of `path`, refused unless a video can be written by it."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ZooError(
            f"{path}: unknown ending {path.suffix!r}; write .mp4, .gif or .png (a strip of frames)"
        )
    return ending


def write_videos(path: Path, pixels: Tensor, frame_rate: float) -> None:
    """Write videos `[N, C, F, H, W]` in [0, 1] (clamped; grey or RGB) to one file.

    Several lie side by side in an MP4 or GIF, and below each other in a strip.

    Raises:
        ZooError: a wrong ending, a place that cannot be written, values that are not finite, or
            more pixels than the format holds; nothing is written.
    """
    ending = check_ending(path)
    check_finite(pixels, str(path))
    check_size(path, len(pixels), *pixels.shape[3:])
    videos = enlarge(to_bytes(pixels))
    if ending == ".png":
        content = png(strip(videos))
    else:
        one = side_by_side(videos, LARGEST[ending])
        content = gif(one, frame_rate) if ending == ".gif" else mp4(one, frame_rate)
    with atomic_file(path) as draft:
        draft.write_bytes(content)


def check_finite(pixels: Tensor, named: str) -> None:
    """Refuse videos `[N, C, F, H, W]` that would be written as black where they are no numbers.

    Raises:
        ZooError: it says which video, how much of it, and what the cause may be.
    """
    for number, video in enumerate(pixels):
        finite = video.isfinite()
        if not finite.all():
            which = f"video {number + 1} of {len(pixels)}" if len(pixels) > 1 else "the video"
            share = 100 * (1 - finite.float().mean().item())
            raise ZooError(
                f"{named}: {which} is not finite ({share:.3g}% of its values are NaN or infinite) "
                "and is not written; the network overflows (try --precision fp32) or its training "
                "went wrong (give an earlier checkpoint)"
            )


def check_size(path: Path, count: int, height: int, width: int) -> None:
    """Refuse what the format of `path` does not hold: `count` videos of `height` x `width` pixels.

    Raises:
        ZooError: it says how large it would be, and what holds it.
    """
    most = LARGEST.get(check_ending(path))
    if most is None:
        return
    factor = max(1, math.ceil(SMALLEST / min(height, width)))
    height, width = height * factor, width * factor
    height, width = height + height % 2, width + width % 2
    across = columns_of(count, height, width, most)
    down = math.ceil(count / across)
    whole = (down * (height + GAP) - GAP, across * (width + GAP) - GAP)
    if max(whole) > most:
        instead = (
            "write one file a video: --out FOLDER" if count > 1 else "make smaller videos, or .png"
        )
        raise ZooError(
            f"{path}: {count} video{'s' * (count > 1)} of {height}x{width} pixels "
            f"make a picture of {whole[0]}x{whole[1]}, and {path.suffix} holds at most {most} a "
            f"side; {instead}"
        )


def columns_of(count: int, height: int, width: int, most: int | None = None) -> int:
    """In how many columns so many videos lie: a row of up to four, else a square grid, or what is
    at most `most` pixels a side."""
    usual = count if count <= 4 else math.ceil(math.sqrt(count))
    if most is None:
        return usual
    widest = max(1, (most + GAP) // (width + GAP))
    return min(usual, widest)


def to_bytes(pixels: Tensor) -> np.ndarray:
    """`[N, C, F, H, W]` in [0, 1] as RGB bytes `[N, F, H, W, 3]`."""
    if pixels.ndim != 5 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"videos are [N, 1 or 3, F, H, W], not {list(pixels.shape)}")
    values = pixels.detach().float().cpu().nan_to_num().clamp(0, 1).mul(255).round().byte()
    return rearrange(values, "n c f h w -> n f h w c").expand(-1, -1, -1, -1, 3).numpy()


def enlarge(videos: np.ndarray) -> np.ndarray:
    """Small videos by a whole factor, every pixel a square; H.264 wants even sizes, too."""
    factor = max(1, math.ceil(SMALLEST / min(videos.shape[2:4])))
    videos = repeat(videos, "n f h w c -> n f (h y) (w x) c", y=factor, x=factor)
    height, width = videos.shape[2:4]
    return np.pad(videos, ((0, 0), (0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def side_by_side(videos: np.ndarray, most: int | None = None) -> np.ndarray:
    """`[N, F, H, W, 3]` as one video `[F, H', W', 3]`, see `columns_of`."""
    count, frames, height, width, _ = videos.shape
    columns = columns_of(count, height, width, most)
    rows = math.ceil(count / columns)
    shape = (frames, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for index, video in enumerate(videos):
        top, left = (height + GAP) * (index // columns), (width + GAP) * (index % columns)
        canvas[:, top : top + height, left : left + width] = video
    return canvas


def strip(videos: np.ndarray) -> np.ndarray:
    """`[N, F, H, W, 3]` as one picture: a row of frames for each video."""
    frames = videos.shape[1]
    chosen = np.linspace(0, frames - 1, min(frames, STRIP)).round().astype(int)
    height, width = videos.shape[2:4]
    shape = (len(videos) * (height + GAP) - GAP, len(chosen) * (width + GAP) - GAP, 3)
    canvas = np.full(shape, 255, dtype=np.uint8)
    for row, video in enumerate(videos):
        for column, frame in enumerate(chosen):
            top, left = (height + GAP) * row, (width + GAP) * column
            canvas[top : top + height, left : left + width] = video[frame]
    return canvas


def png(picture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def mp4(video: np.ndarray, frame_rate: float) -> bytes:
    """An H.264 MP4 of `[F, H, W, 3]`, in the pixel format that every player knows."""
    buffer = io.BytesIO()
    with Mp4(buffer, frame_rate) as file:
        file.add(video)
    return buffer.getvalue()


#: ITU-T H.273's numbers of the primaries, transfer and matrix of BT.709, and of its range 16-235.
_BT709, _LIMITED = 1, 1


class Mp4:
    """An H.264 MP4 that grows; it can be played once the `with` block has ended.

    Args:
        target: a path, or a file that is open for writing bytes.
        frame_rate: frames a second.
    """

    def __init__(self, target: Any, frame_rate: float) -> None:
        import av

        self._container = av.open(target, "w", format="mp4")
        rate = Fraction(frame_rate).limit_denominator(1000)
        self._stream = self._container.add_stream("h264", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "16"}
        # without them players guess: BT.601 or BT.709, by the height or as they like
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        self._sized = False

    def add(self, video: np.ndarray) -> None:
        """The next frames, bytes `[F, H, W, 3]`; H and W are even and stay the same."""
        import av

        if not self._sized:
            self._stream.height, self._stream.width = video.shape[1:3]
            self._sized = True
        for frame in video:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p",
                src_colorspace="ITU709",
                dst_colorspace="ITU709",
                src_color_range="JPEG",
                dst_color_range="MPEG",
            )
            picture.colorspace, picture.color_range = _BT709, _LIMITED
            self._container.mux(self._stream.encode(picture))

    def __enter__(self) -> Mp4:
        return self

    def __exit__(self, *ended: object) -> None:
        try:
            if self._sized:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()
