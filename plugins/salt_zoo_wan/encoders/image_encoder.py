"""Wan 2.1's image encoder (CLIP ViT-H/14), loaded when first used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salt_zoo_wan.components import Components, load_component


class ImageEncoder:
    """CLIP in float32 as `WanImageToVideoPipeline` uses it: the states before the last layer.

    Args:
        components: where `image_encoder` and `image_processor` are.
        width: of its states.
    """

    def __init__(self, components: Components, width: int) -> None:
        self.components, self.width = components, width
        self._loaded: tuple[Any, Any] | None = None

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1] `[B, 3, height, width]` to `[B, tokens, width]`, 257 tokens of 1280.

        The processor is given 8-bit pixels, as of an image file, and scales and cuts them itself.
        """
        processor, encoder = self._load()
        encoder.to(images.device)
        rows = (images.clamp(0, 1) * 255).round().byte().cpu().permute(0, 2, 3, 1).numpy()
        pixels = processor(images=list(rows), return_tensors="pt")["pixel_values"]
        with torch.autocast(images.device.type, enabled=False):
            states = encoder(pixels.to(images.device), output_hidden_states=True).hidden_states
        found: Tensor = states[-2]
        return found

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers.utils import logging

            before = logging.get_verbosity()
            logging.set_verbosity_error()  # a processor without torchvision is no news to anybody
            try:
                from transformers import CLIPImageProcessor, CLIPVisionModel
            finally:
                logging.set_verbosity(before)
            folder, settings = (
                self.components.folder("image_encoder"),
                self.components.folder("image_processor"),
            )
            encoder = load_component(
                folder,
                lambda: CLIPVisionModel.from_pretrained(
                    folder, dtype=torch.float32, local_files_only=True
                ),
            )
            processor = load_component(
                settings,
                lambda: CLIPImageProcessor.from_pretrained(settings, local_files_only=True),
            )
            self._loaded = processor, encoder.eval().requires_grad_(False)
        return self._loaded
