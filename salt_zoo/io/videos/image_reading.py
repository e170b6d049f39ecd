"""Images of files as first frames of videos: scaled and cut to a size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.io.files.regular import check_regular, expanded
from salt_zoo.io.videos.video_reading import cover


def check_image(path: Path) -> None:
    """Refuse what is no image by its first bytes; nothing is decoded.

    Raises:
        ZooError: there is no such file, it is no image, or has more than 8 bits a channel.
    """
    _opened(path).close()


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """An image in [0, 1], `[channels, height, width]` of `shape`: turned as its file says, scaled
    until it covers the size and cut at its centre, as the frames of videos are.

    Args:
        shape: with 3 channels, or 1 for grey values.

    Raises:
        ZooError: there is no such file, it is no image, or has more than 8 bits a channel.
    """
    from PIL import ImageOps

    channels, *size = shape
    try:
        with _opened(path) as file, _quiet():
            image = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
            pixels = torch.from_numpy(np.array(image)).float() / 255
    except ZooError:
        raise
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise ZooError(f"{path}: cannot be read as an image ({reason(error)})") from None
    pixels = pixels[None] if channels == 1 else pixels.permute(2, 0, 1)
    height, width = size
    return cover(pixels[:, None], (height, width))[:, 0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Pillow says beside its errors, and of files that it reads all the same: odd
    EXIF, many pixels."""
    log = logging.getLogger("PIL")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _opened(path: Path) -> Any:
    from PIL import Image

    try:
        check_regular(expanded(path), "give an image")
        with _quiet():
            image = Image.open(expanded(path))
    except ZooError:
        raise
    except FileNotFoundError:
        raise ZooError(f"{path}: there is no such file") from None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise ZooError(f"{path}: cannot be read as an image ({reason(error)})") from None
    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow would cut the values off at 255 instead of scaling them: an image all of white
        image.close()
        raise ZooError(
            f"{path}: has more than 8 bits a channel (Pillow's mode {image.mode!r}); save it with 8"
        )
    return image
