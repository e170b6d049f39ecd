"""The option `--image` of the commands that generate video."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_zoo.core.errors import ZooError

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
    options: argparse.Namespace, backbone: Any, size: str | None
) -> FirstFrames | None:
    """What `--image` adds to the condition; None for a size that generates from prompts alone.

    Raises:
        ZooError: there is an image and the size takes none, or the other way round, or it cannot be
            read.
    """
    named = f"the size {size!r}" if size else "the backbone"
    if backbone.image_shape is None:
        if options.image is not None:
            raise ZooError(
                f"--image {options.image}: {named} generates from prompts alone; leave --image "
                "out, choose an image-to-video size, or with wan2.2-ti2v-5b set "
                "backbone.options.from_image=true"
            )
        return None
    if options.image is None:
        raise ZooError(f"{named} generates from a first frame; give one with --image FILE")

    from salt_zoo.core.first_frame import of_image
    from salt_zoo.io.image_reading import read_image

    try:
        image = read_image(options.image, backbone.image_shape)
    except ZooError as error:
        raise ZooError(f"--image {error}") from None
    return of_image(backbone, image)
