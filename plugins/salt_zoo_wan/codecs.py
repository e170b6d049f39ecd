"""Wan's text encoder and VAE, loaded when first used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core.errors import ZooError
from salt_zoo.core.transfers import send
from salt_zoo.io.storage import digest
from salt_zoo_wan.encodings import MAX_TOKENS, Encodings, default_folder
from salt_zoo_wan.frame_decoder import FrameDecoder
from salt_zoo_wan.parts import Parts


class TextEncoder:
    """UMT5 as `WanPipeline` uses it: prompts cleaned, cut at 512 tokens, padded with zeros.

    Each prompt is encoded once and kept on disk by the digests of prompt and encoder, so that later
    runs need not load the encoder.

    Args:
        parts: where `text_encoder` and `tokenizer` are.
        cache: a folder for encodings; None is one in the user's cache folder.
    """

    def __init__(self, parts: Parts, cache: Path | None = None) -> None:
        self.parts = parts
        self.cache = cache
        self._encodings: dict[torch.dtype, Encodings] = {}
        self._loaded: tuple[Any, Any] | None = None

    def encode(self, prompts: Sequence[str], device: Any) -> Tensor:
        """`[B, 512, width]` float32 on `device`."""
        place = torch.device(device)
        known = self._known(place)
        if new := known.unread(prompts):
            self._encode(new, place, known)
        return known.rows(prompts, place)

    def encode_ahead(self, prompts: Sequence[str], device: Any) -> None:
        """Encode what is new in one go: the encoder, 11 GB of it, goes to the GPU once."""
        place = torch.device(device)
        known = self._known(place)
        if new := known.missing(prompts):
            self._encode(new, place, known)

    def _known(self, device: torch.device) -> Encodings:
        """What the encoder has made in the precision that it has on a device."""
        dtype = _dtype(device)
        if dtype not in self._encodings:
            folder = self.cache or default_folder()
            if folder is not None:
                made = {
                    **self.parts.fingerprint("text_encoder"),
                    **self.parts.fingerprint("tokenizer"),
                    "dtype": str(dtype),
                }
                folder = folder / digest(made)
            self._encodings[dtype] = Encodings(folder)
        return self._encodings[dtype]

    @torch.no_grad()
    def _encode(
        self, prompts: Sequence[str], device: torch.device, known: Encodings, batch: int = 16
    ) -> None:
        tokenizer, encoder = self._load(device)
        encoder.to(device)
        for start in range(0, len(prompts), batch):
            some = prompts[start : start + batch]
            tokens = tokenizer(
                [clean(prompt) for prompt in some],
                padding="max_length",
                max_length=MAX_TOKENS,
                truncation=True,
                add_special_tokens=True,
                return_attention_mask=True,
                return_tensors="pt",
            )
            lengths = tokens.attention_mask.sum(dim=1).tolist()
            mask = send(tokens.attention_mask, device)
            with torch.autocast(device.type, enabled=False):
                states = encoder(send(tokens.input_ids, device), mask).last_hidden_state.cpu()
            for prompt, state, length in zip(some, states, lengths, strict=True):
                known.add(prompt, state[:length].clone())
        encoder.to("cpu")  # on a GPU its 11 GB are needed for training

    def _load(self, device: torch.device) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoTokenizer, UMT5EncoderModel

            folder, vocabulary = self.parts.folder("text_encoder"), self.parts.folder("tokenizer")
            dtype = _dtype(device)
            encoder = _load(
                folder,
                lambda: UMT5EncoderModel.from_pretrained(
                    folder, dtype=dtype, local_files_only=True
                ),
            )
            tokenizer = _load(
                vocabulary,
                lambda: AutoTokenizer.from_pretrained(vocabulary, local_files_only=True),
            )
            self._loaded = tokenizer, encoder.eval().requires_grad_(False)
        return self._loaded


class VideoCodec:
    """`AutoencoderKLWan` in float32, one video at a time; latents are normalised to unit variance.

    Args:
        parts: where `vae` is.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._vae: Any = None

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Pixels in [0, 1] `[B, 3, 4f - 3, 8h, 8w]` to latents `[B, 16, f, h, w]`."""
        vae, mean, deviation = self._on(video.device)
        rows = [vae.encode(row[None].float() * 2 - 1).latent_dist.mode() for row in video]
        return (torch.cat(rows) - mean) / deviation

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pixels in [0, 1] (the VAE clamps them)."""
        vae, mean, deviation = self._on(latents.device)
        rows = [
            vae.decode(z[None], return_dict=False)[0] for z in latents.float() * deviation + mean
        ]
        return (torch.cat(rows) + 1) / 2

    def frame_decoder(self, device: Any) -> FrameDecoder:
        """A decoder for the blocks of one stream."""
        return FrameDecoder(*self._on(torch.device(device)))

    def _on(self, device: torch.device) -> tuple[Any, Tensor, Tensor]:
        if self._vae is None:
            from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

            folder = self.parts.folder("vae")
            vae = _load(
                folder, lambda: AutoencoderKLWan.from_pretrained(folder, local_files_only=True)
            )
            self._vae = vae.eval().requires_grad_(False)
        vae = self._vae.to(device)
        shape = (1, vae.config.z_dim, 1, 1, 1)
        mean = torch.tensor(vae.config.latents_mean, device=device).view(shape)
        return vae, mean, torch.tensor(vae.config.latents_std, device=device).view(shape)


def _dtype(device: torch.device) -> torch.dtype:
    """In which the text encoder is loaded for a device."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def clean(prompt: str) -> str:
    """As `WanPipeline` does: text encoding mended, HTML entities read, white space single."""
    from html import unescape

    from ftfy import fix_text

    return " ".join(unescape(unescape(fix_text(prompt))).split())


def _load(folder: Path, load: Callable[[], Any]) -> Any:
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would write over the training's own
    try:
        return load()
    except Exception as error:  # transformers and diffusers raise many kinds for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise ZooError(f"{folder}: cannot be loaded ({reason}); fetch it again") from None
    finally:
        if bars:
            logging.enable_progress_bar()
