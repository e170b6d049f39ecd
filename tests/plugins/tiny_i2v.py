"""A diffusers pipeline folder of Wan 2.1 image-to-video with random weights, about 2 MB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

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
        UMT5Config,
        UMT5EncoderModel,
    )

    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = UMT5Config(
            vocab_size=384, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
            is_encoder_decoder=False,
        )  # fmt: skip
        clip = CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
            image_size=224, patch_size=14, projection_dim=8,
        )  # fmt: skip
        pipeline = WanImageToVideoPipeline(
            tokenizer=ByT5Tokenizer(),
            text_encoder=UMT5EncoderModel(text).eval(),
            vae=AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
            scheduler=UniPCMultistepScheduler(),
            image_processor=CLIPImageProcessor(),
            image_encoder=CLIPVisionModel(clip).eval(),
            transformer=WanTransformer3DModel(**TRANSFORMER),
        )
    pipeline.save_pretrained(folder)
    return folder
