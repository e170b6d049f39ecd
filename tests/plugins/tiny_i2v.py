"""A diffusers pipeline folder of Wan 2.1 image-to-video with random weights, about 2 MB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from tests.plugins.tiny_text import text_encoder

SIZE = "wan2.1-i2v-14b-480p"
SHAPE = {"height": 32, "width": 48, "frames": 9}
TRANSFORMER: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 48,
    "num_layers": 2,
    "cross_attn_norm": True,
    "image_dim": 16,
    "added_kv_proj_dim": 24,
}


def save_pipeline(folder: Path) -> Path:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import (
        ByT5Tokenizer,
        CLIPImageProcessor,
        CLIPVisionConfig,
        CLIPVisionModel,
    )

    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
            image_size=224, patch_size=14, projection_dim=8,
        )  # fmt: skip
        pipeline = WanImageToVideoPipeline(
            tokenizer=ByT5Tokenizer(),
            text_encoder=text_encoder(),
            vae=AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
            scheduler=UniPCMultistepScheduler(),
            image_processor=CLIPImageProcessor(),
            image_encoder=CLIPVisionModel(clip).eval(),
            transformer=WanTransformer3DModel(**TRANSFORMER),
        )
    pipeline.save_pretrained(folder)
    return folder


def block_by_block(
    network: Any, x: torch.Tensor, t: torch.Tensor, condition: Any, past: torch.Tensor,
    time: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Velocities at `x` `[B, C, F, H, W]` and times `t`, a frame at a time, each remembered as it
    is in `past` at `time`."""
    memory, found = network.new_memory(x), []
    for frame in range(x.shape[2]):
        part = slice(frame, frame + 1)
        found.append(network(x[:, :, part], t, condition, memory))
        network.update_cache(past[:, :, part], time, condition, memory)
    return torch.cat(found, dim=2)


def make_image(seed=0):
    """Of 8 bits, as files have them: `[3, 32, 48]` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(3, 32, 48, generator=generator) * 255).round() / 255


def as_pil(image):
    return PIL.Image.fromarray(np.asarray((image * 255).round().byte().permute(1, 2, 0)))
