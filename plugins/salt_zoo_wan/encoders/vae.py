"""Wan's VAE, loaded when first used, and the decoder that may stand in for its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from salt_zoo_wan.components import Components, load_component
from salt_zoo_wan.encoders.frame_decoder import FrameDecoder
from salt_zoo_wan.encoders.tiny_decoder import TinyDecoder, TinyFrameDecoder


class VideoCodec:
    """`AutoencoderKLWan` in float32, one video at a time; latents are normalised to unit variance.

    Args:
        components: where `vae` is.
        tiny: decodes in place of the VAE, which then is loaded to encode alone; None: the VAE.
        published: the published configuration, where its folder is not on this machine.
    """

    def __init__(
        self,
        components: Components,
        tiny: TinyDecoder | None = None,
        published: Mapping[str, Any] | None = None,
    ) -> None:
        self.components, self.tiny, self.published = components, tiny, published
        self._vae: Any = None

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Pixels in [0, 1] `[B, 3, 4f - 3, 8h, 8w]` to latents `[B, 16, f, h, w]`."""
        vae, mean, deviation = self._on(video.device)
        rows = [vae.encode(row[None].float() * 2 - 1).latent_dist.mode() for row in video]
        return (torch.cat(rows) - mean) / deviation

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pixels in [0, 1] (the decoders clamp them)."""
        if self.tiny is not None:
            return self.frame_decoder(latents.device)(latents)
        vae, mean, deviation = self._on(latents.device)
        rows = [
            vae.decode(z[None], return_dict=False)[0] for z in latents.float() * deviation + mean
        ]
        return (torch.cat(rows) + 1) / 2

    def frame_decoder(self, device: torch.device | str) -> Callable[[Tensor], Tensor]:
        """A decoder for the blocks of one stream."""
        if self.tiny is None:
            return FrameDecoder(*self._on(torch.device(device)))
        tiny = self.tiny.to(device, torch.float32)
        if tiny.denormalise:
            return TinyFrameDecoder(tiny, *self._scale(device))
        return TinyFrameDecoder(tiny)

    def _scale(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the VAE's latents, `[C, 1, 1, 1]`, without its weights."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        config = self.published
        if self.components.find("vae") or not _has_scale(config):
            folder = self.components.folder("vae")
            config = load_component(folder, lambda: AutoencoderKLWan.load_config(folder))
        with torch.device("meta"):
            made: Any = AutoencoderKLWan.from_config(config)
        both = [
            torch.tensor(values, device=device).view(-1, 1, 1, 1)
            for values in (made.config.latents_mean, made.config.latents_std)
        ]
        return both[0], both[1]

    def _on(self, device: torch.device) -> tuple[Any, Tensor, Tensor]:
        if self._vae is None:
            from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

            folder = self.components.folder("vae")
            vae = load_component(
                folder, lambda: AutoencoderKLWan.from_pretrained(folder, local_files_only=True)
            )
            self._vae = vae.eval().requires_grad_(False)
        vae = self._vae.to(device)
        shape = (1, vae.config.z_dim, 1, 1, 1)
        mean = torch.tensor(vae.config.latents_mean, device=device).view(shape)
        return vae, mean, torch.tensor(vae.config.latents_std, device=device).view(shape)


def _has_scale(config: Mapping[str, Any] | None) -> bool:
    """Whether a configuration tells the scale of its latents: diffusers' default is Wan 2.1's."""
    return config is not None and ("latents_mean" in config or "z_dim" not in config)
