"""Wan's text encoder (UMT5), loaded when first used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core.base.transfers import send
from salt_zoo.io.files.storage import digest
from salt_zoo_wan.components import Components, load_component
from salt_zoo_wan.transformer.prompt_cache import MAX_TOKENS, PromptCache, default_folder


class TextEncoder:
    """UMT5 as `WanPipeline` uses it: prompts cleaned, cut at 512 tokens, padded with zeros.

    Each prompt is encoded once and kept on disk by the digests of prompt and encoder, so that later
    runs need not load the encoder.

    Args:
        components: where `text_encoder` and `tokenizer` are.
        cache: a folder for encodings; None is one in the user's cache folder.
    """

    def __init__(self, components: Components, cache: Path | None = None) -> None:
        self.components = components
        self.cache = cache
        self._encodings: dict[torch.dtype, PromptCache] = {}
        self._loaded: tuple[Any, Any] | None = None

    def encode(self, prompts: Sequence[str], device: torch.device | str) -> Tensor:
        """`[B, 512, width]` float32 on `device`."""
        place = torch.device(device)
        known = self._known(place)
        if new := known.unread(prompts):
            self._encode(new, place, known)
        return known.rows(prompts, place)

    def encode_ahead(self, prompts: Sequence[str], device: torch.device | str) -> None:
        """Encode what is new in one go: the encoder, 11 GB of it, goes to the GPU once."""
        place = torch.device(device)
        known = self._known(place)
        if new := known.missing(prompts):
            self._encode(new, place, known)

    def missing(self, prompts: Sequence[str], device: torch.device | str) -> list[str]:
        """Those that the encoder would have to run for, each once."""
        return self._known(torch.device(device)).missing(prompts)

    def encode_once(self, prompts: Sequence[str], device: torch.device | str) -> Tensor:
        """As `encode`; what is new is not kept, and the encoder stays on the device."""
        place = torch.device(device)
        known = self._known(place)
        passing = PromptCache(None)
        new = known.unread(prompts)
        for prompt, states in self._states(new, place):
            passing.add(prompt, states)
        rows = {
            prompt: (passing if prompt in new else known).rows([prompt], place)[0]
            for prompt in dict.fromkeys(prompts)
        }
        return torch.stack([rows[prompt] for prompt in prompts])

    def _known(self, device: torch.device) -> PromptCache:
        """What the encoder has made in the precision that it has on a device."""
        dtype = _dtype(device)
        if dtype not in self._encodings:
            folder = self.cache or default_folder()
            if folder is not None:
                made = {
                    **self.components.fingerprint("text_encoder"),
                    **self.components.fingerprint("tokenizer"),
                    "dtype": str(dtype),
                }
                folder = folder / digest(made)
            self._encodings[dtype] = PromptCache(folder)
        return self._encodings[dtype]

    def _encode(self, prompts: Sequence[str], device: torch.device, known: PromptCache) -> None:
        for prompt, states in self._states(prompts, device):
            known.add(prompt, states)
        self._load(device)[1].to("cpu")  # on a GPU its 11 GB are needed for training

    @torch.no_grad()
    def _states(
        self, prompts: Sequence[str], device: torch.device, batch: int = 16
    ) -> Iterator[tuple[str, Tensor]]:
        """The states `[tokens, width]` of each prompt, on the CPU."""
        if not prompts:
            return
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
                yield prompt, state[:length].clone()

    def _load(self, device: torch.device) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoTokenizer, UMT5EncoderModel

            folder, vocabulary = (
                self.components.folder("text_encoder"),
                self.components.folder("tokenizer"),
            )
            dtype = _dtype(device)
            encoder = load_component(
                folder,
                lambda: UMT5EncoderModel.from_pretrained(
                    folder, dtype=dtype, local_files_only=True
                ),
            )
            tokenizer = load_component(
                vocabulary,
                lambda: AutoTokenizer.from_pretrained(vocabulary, local_files_only=True),
            )
            self._loaded = tokenizer, encoder.eval().requires_grad_(False)
        return self._loaded


def _dtype(device: torch.device) -> torch.dtype:
    """In which the text encoder is loaded for a device."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def clean(prompt: str) -> str:
    """As `WanPipeline` does: text encoding mended, HTML entities read, white space single."""
    from html import unescape

    from ftfy import fix_text

    return " ".join(unescape(unescape(fix_text(prompt))).split())
