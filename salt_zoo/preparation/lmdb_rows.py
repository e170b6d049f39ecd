"""Rows of an LMDB in the layout of this library: channels before frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.protocols import Backbone
from salt_zoo.io.latent_lmdb import LatentLmdb


def check_shape(lmdb: LatentLmdb, backbone: Backbone) -> None:
    """Refuse latents of another shape than the backbone's, and an LMDB without rows.

    Raises:
        ZooError: the line has both shapes.
    """
    if not len(lmdb):
        raise ZooError(f"{lmdb.path}: holds no rows; write it again with the script that made it")
    frames, channels, height, width = lmdb.shape[-4:]
    found = (channels, frames, height, width)
    if found != tuple(backbone.latent_shape):
        raise ZooError(
            f"{lmdb.path}: its latents have {_words(found)}, and the backbone's "
            f"{_words(backbone.latent_shape)}; set height, width and frames in backbone.options, "
            "or choose another size"
        )


def states(lmdb: LatentLmdb, rows: Sequence[int]) -> Tensor:
    """Trajectories `[B, K, C, F, H, W]`, float16, of rows `[K, F, C, H, W]`: from noise on, as they
    are stored."""
    return torch.stack([lmdb.latents(row).transpose(1, 2) for row in rows])


def clean_latents(lmdb: LatentLmdb, rows: Sequence[int]) -> Tensor:
    """Latents `[B, C, F, H, W]`, float16, of rows `[F, C, H, W]`, or of the last, clean one of
    several states."""
    found = []
    for row in rows:
        latents = lmdb.latents(row)
        clean = latents if latents.ndim == 4 else latents[-1]
        found.append(clean.transpose(0, 1))
    return torch.stack(found)


def images_of(lmdb: LatentLmdb, rows: Sequence[int], backbone: Backbone) -> Tensor | None:
    """First frames `[B, 3, height, width]` in [0, 1]; None for a backbone that needs none."""
    if backbone.image_shape is None:
        return None
    _, height, width = backbone.image_shape
    return torch.stack([lmdb.image(row, height, width) for row in rows])


def _words(shape: Sequence[int]) -> str:
    channels, frames, height, width = shape
    return f"{frames} frames of {channels} x {height} x {width}"
