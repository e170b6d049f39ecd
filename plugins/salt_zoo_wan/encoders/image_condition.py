"""What the codecs of a published size make of first frames, for the transformer's `first_frame`."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from salt_zoo.core.protocols import Condition
from salt_zoo_wan.encoders.image_encoder import ImageEncoder
from salt_zoo_wan.encoders.vae import VideoCodec
from salt_zoo_wan.transformer.first_frame import masked_channels

#: CLIP's tokens of 224x224 pixels: 16x16 patches of 14x14, and one of the whole.
IMAGE_TOKENS = 257


class ImageCodec(Protocol):
    """What makes the condition of first frames."""

    def encode(self, images: Tensor, latent_shape: tuple[int, int, int, int]) -> Condition:
        """Of pixels in [0, 1] `[B, 3, H, W]` for videos of a latent shape C, F, h, w."""
        ...


class ChannelsOfImage:
    """Image-to-video of Wan 2.1 and of 2.2's A14B: the VAE's latents of the frame followed by grey
    ones, and in 2.1 CLIP's states.

    Args:
        video: the VAE.
        encoder: CLIP; None for 2.2.
    """

    def __init__(self, video: VideoCodec, encoder: ImageEncoder | None) -> None:
        self.video, self.encoder = video, encoder

    def encode(self, images: Tensor, latent_shape: tuple[int, int, int, int]) -> Condition:
        """`channels` `[B, 4 + C, F, h, w]` and `image` `[B, 257, width]` of `[B, 3, H, W]`."""
        rows, frames = len(images), latent_shape[1]
        if images.device.type == "meta":
            latents = images.new_empty(rows, *latent_shape)
        else:
            grey = torch.full_like(images, 0.5)[:, :, None].expand(-1, -1, 4 * frames - 4, -1, -1)
            latents = self.video.encode(torch.cat([images[:, :, None], grey], dim=2))
        channels = {"channels": masked_channels(latents)}
        if self.encoder is None:
            return channels
        if images.device.type == "meta":
            return {**channels, "image": images.new_empty(rows, IMAGE_TOKENS, self.encoder.width)}
        return {**channels, "image": self.encoder.encode(images)}


class LatentsOfImage:
    """Wan 2.2's 5 B: the VAE's latents of the frame, which take the place of the noisy ones.

    Args:
        video: the VAE.
    """

    def __init__(self, video: VideoCodec) -> None:
        self.video = video

    def encode(self, images: Tensor, latent_shape: tuple[int, int, int, int]) -> Condition:
        """`first` `[B, C, 1, h, w]` of `[B, 3, H, W]`."""
        if images.device.type == "meta":
            channels, _, height, width = latent_shape
            return {"first": images.new_empty(len(images), channels, 1, height, width)}
        return {"first": self.video.encode(images[:, :, None])}
