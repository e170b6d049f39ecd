"""Decoding a video of Wan block by block, as it is made."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor


class FrameDecoder:
    """Wan's VAE decoder with the features that the next block needs; one for each stream.

    `AutoencoderKLWan.decode` goes frame by frame, too, with a cache of features that it empties at
    the end; here the cache stays, and is not the VAE's own, so that others may decode in between.

    Args:
        vae: an `AutoencoderKLWan`.
        mean, deviation: of its latents by channel, `[1, C, 1, 1, 1]`.
    """

    def __init__(self, vae: Any, mean: Tensor, deviation: Tensor) -> None:
        self.vae, self.mean, self.deviation = vae, mean, deviation
        from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify

        self._unpatchify = partial(unpatchify, patch_size=vae.config.patch_size or 1)
        self._entries = sum(isinstance(m, WanCausalConv3d) for m in vae.decoder.modules())
        self._caches: list[list[Any]] = []

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """The next latents `[B, C, f, h, w]` to pixels in [0, 1], `[B, 3, F, 8h, 8w]` (16h, 16w for
        Wan 2.2's 5 B).

        F is 4f, and 4f - 3 at the first call: the first latent frame is one frame.
        """
        if not self._caches:
            self._caches = [[None] * self._entries for _ in latents]
        if len(latents) != len(self._caches):
            raise ValueError(f"{len(self._caches)} videos were begun, not {len(latents)}")
        scaled = latents.float() * self.deviation + self.mean
        rows = [self._row(z[None], cache) for z, cache in zip(scaled, self._caches, strict=True)]
        return (torch.cat(rows).clamp(-1, 1) + 1) / 2

    def _row(self, z: Tensor, cache: list[Any]) -> Tensor:
        frames = []
        for frame in self.vae.post_quant_conv(z).split(1, dim=2):
            first = cache[0] is None
            frames.append(
                self.vae.decoder(frame, feat_cache=cache, feat_idx=[0], first_chunk=first)
            )
        pixels: Tensor = self._unpatchify(torch.cat(frames, dim=2))
        return pixels
