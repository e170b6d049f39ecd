"""A plugin with sizes of Wan for digits: a teacher that is wider and deeper than its student."""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch.nn.functional import pad

from salt_zoo import hookimpl
from salt_zoo_digits.data import FRAMES, SIZE
from salt_zoo_digits.size import TRANSFORMER, DigitsSize
from salt_zoo_wan.sizes import Experts
from salt_zoo_wan.transformer.first_frame import masked_channels
from salt_zoo_wan.transformer.prompt_cache import MAX_TOKENS


class _Random(DigitsSize):
    """Weights that are the same every time, in place of those of a file."""

    changes: dict[str, Any]
    version = 1  # without one, each run would digest all files of the tests

    def __init__(self, config: Any, zoo: Any) -> None:
        super().__init__(config, zoo)
        self.causal_weights = None
        self.transformer_config = {**TRANSFORMER, **self.changes}

    def transformer(self, start: Literal["teacher", "random"]) -> WanTransformer3DModel:
        if start == "random":
            return WanTransformer3DModel(**self.transformer_config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self.changes))
            return WanTransformer3DModel(**self.transformer_config)

    def fingerprint(self) -> dict[str, str]:
        return {"changes": repr(self.changes)}


class Small(_Random):
    changes = {"num_layers": 2, "ffn_dim": 64}


class Tiny(_Random):
    changes = {"num_layers": 1, "ffn_dim": 64}


class Large(_Random):
    changes = {"num_layers": 6, "num_attention_heads": 6, "ffn_dim": 320}


class Wide(_Random):
    changes = {"num_layers": 2, "num_attention_heads": 6, "ffn_dim": 128}


class Longer(_Random):
    changes = {"num_layers": 1}
    latent_shape = (1, 12, 16, 16)


class Reader(_Random):
    """It reads prompts of other words."""

    changes = {"num_layers": 1}

    def encode_prompts(self, prompts: Any, device: Any) -> dict[str, torch.Tensor]:
        return {"text": torch.zeros(len(prompts), 3, 5, device=device)}


class ImageToVideo(_Random):
    """It generates from a first frame, as Wan 2.1 does: channels beside the noise, tokens beside
    the prompt's."""

    changes = {
        "num_layers": 2,
        "ffn_dim": 64,
        "in_channels": TRANSFORMER["in_channels"] + 4 + 1,
        "image_dim": SIZE,
        "added_kv_proj_dim": 64,
    }
    image_shape = (1, SIZE, SIZE)

    def encode_prompts(self, prompts: Any, device: Any) -> dict[str, torch.Tensor]:
        text = super().encode_prompts(prompts, device)["text"]
        return {"text": pad(text, (0, 0, 0, MAX_TOKENS - text.shape[1]))}

    def encode_images(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Its rows are the image's tokens."""
        grey = torch.full_like(images, 0.5)[:, :, None].expand(-1, -1, FRAMES - 1, -1, -1)
        latents = self.encode_video(torch.cat([images[:, :, None], grey], dim=2))
        return {"channels": masked_channels(latents), "image": images[:, 0]}


class FirstFrame(_Random):
    """It generates from a first frame, as Wan 2.2's 5 B does: clean latents in its place."""

    changes = {"num_layers": 2, "ffn_dim": 64}
    image_shape = (1, SIZE, SIZE)

    def encode_images(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"first": self.encode_video(images[:, :, None])}


class TwoExperts(_Random):
    """It is two networks, as Wan 2.2's A14B is."""

    changes = {"num_layers": 2, "ffn_dim": 64}

    def __init__(self, config: Any, zoo: Any) -> None:
        super().__init__(config, zoo)
        self.experts = Experts(Wide(config, zoo), Small(config, zoo), boundary=0.8)


@hookimpl
def register(zoo):
    sizes = {
        "experts": TwoExperts,
        "small": Small,
        "tiny": Tiny,
        "wide": Wide,
        "large": Large,
        "longer": Longer,
        "reader": Reader,
        "small-i2v": ImageToVideo,
        "small-ti2v": FirstFrame,
    }
    for name, size in sizes.items():
        zoo.sizes.add(f"test-{name}", size, "for tests")
