"""The first frames of the commands that generate video: `--image`, or a table's column."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_zoo.core.base.errors import ZooError

if TYPE_CHECKING:
    from salt_zoo.core.first_frame import FirstFrames


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="first frame of the videos, for a size that generates from an image; scaled to cover "
        "the size's frames and cut at its centre",
    )


def first_frames(
    options: argparse.Namespace, backbone: Any, size: str | None, files: Sequence[Path] = ()
) -> FirstFrames | None:
    """What first frames add to the condition, by the places of prompts; None for a size that
    generates from prompts alone.

    Args:
        files: of each prompt, from a table; else `--image` is that of all.

    Raises:
        ZooError: there are images and the size takes none, or the other way round, or one cannot be
            read.
    """
    named = f"the size {size!r}" if size else "the backbone"
    if backbone.image_shape is None:
        if options.image is not None or files:
            given = f"--image {options.image}" if options.image else "--image-column"
            raise ZooError(
                f"{given}: {named} generates from prompts alone; leave --image "
                "out, choose an image-to-video size, or with wan2.2-ti2v-5b set "
                "backbone.options.from_image=true"
            )
        return None
    if options.image is None and not files:
        raise ZooError(f"{named} generates from a first frame; give one with --image FILE")

    from salt_zoo.core.first_frame import of_image, of_images
    from salt_zoo.io.videos.image_reading import check_image, read_image

    if files:
        for file in dict.fromkeys(files):
            check_image(file)  # one that is none is told before the work
        shape = backbone.image_shape
        return of_images(backbone, [functools.partial(read_image, file, shape) for file in files])
    try:
        image = read_image(options.image, backbone.image_shape)
    except ZooError as error:
        raise ZooError(f"--image {error}") from None
    return of_image(backbone, image)
