"""An animated GIF with every frame of a video in it, at the video's own speed."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

#: Of a frame's palette flag and size in the flags of a screen or an image.
_HAS_PALETTE, _PALETTE_SIZE = 0x80, 0x07
#: A block of an extension or an image has at most 255 bytes behind its length.
_EXTENSION, _IMAGE, _END = b"\x21", b"\x2c", b"\x3b"
_FOR_EVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


def gif(video: np.ndarray, frame_rate: float) -> bytes:
    """An animated GIF of `[F, H, W, 3]` bytes that repeats for ever.

    Pillow encodes each frame by itself; put together by it, equal neighbours would become one frame
    and every frame would last the same, which at 16 a second is 4% too fast.
    """
    height, width = video.shape[1:3]
    parts = [b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0), _FOR_EVER]
    for frame, hundredths in zip(video, durations(len(video), frame_rate), strict=True):
        palette, image = _encoded(frame)
        parts.append(b"\x21\xf9\x04\x04" + struct.pack("<H", hundredths) + b"\x00\x00")
        parts.append(_with_palette(image, palette))
    return b"".join(parts) + _END


def durations(frames: int, frame_rate: float) -> Iterator[int]:
    """How many hundredths of a second each frame lasts, so that the sum is right to half of one.

    >>> list(durations(8, 16))
    [6, 6, 7, 6, 6, 6, 7, 6]
    """
    ends = [round(100 * k / frame_rate) for k in range(frames + 1)]
    return (max(1, min(after - before, 2**16 - 1)) for before, after in pairwise(ends))


def _encoded(frame: np.ndarray) -> tuple[bytes, bytes]:
    """The palette and the image block (descriptor and compressed data) of one frame."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "GIF")
    content = buffer.getvalue()
    flags, place = content[10], 13
    palette = b""
    if flags & _HAS_PALETTE:
        length = 3 * 2 ** ((flags & _PALETTE_SIZE) + 1)
        palette, place = content[place : place + length], place + length
    while content[place : place + 1] == _EXTENSION:
        place = _after_blocks(content, place + 2)
    assert content[place : place + 1] == _IMAGE
    inside = content[place + 9]
    data = place + 10
    if inside & _HAS_PALETTE:
        length = 3 * 2 ** ((inside & _PALETTE_SIZE) + 1)
        palette, data = content[data : data + length], data + length
    end = _after_blocks(content, data + 1)  # behind the byte of the code's width
    return palette, content[place : place + 10] + content[data:end]


def _with_palette(image: bytes, palette: bytes) -> bytes:
    """An image block with `palette` as its own."""
    size = (len(palette) // 3).bit_length() - 2
    flags = (image[9] & ~(_HAS_PALETTE | _PALETTE_SIZE)) | _HAS_PALETTE | size
    return image[:9] + bytes([flags]) + palette + image[10:]


def _after_blocks(content: bytes, place: int) -> int:
    """Where the blocks that begin at `place`, each with its length in front, have ended."""
    while content[place]:
        place += content[place] + 1
    return place + 1
