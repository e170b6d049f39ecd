"""The published configurations of Wan 2.1 (arXiv 2503.20314) and Wan 2.2, for planning without
files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_TRANSFORMER: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "attention_head_dim": 128,
    "rope_max_seq_len": 1024,
}

#: The encoder of google/umt5-xxl, as transformers' `UMT5Config` takes it.
TEXT_ENCODER: dict[str, Any] = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "vocab_size": 256384,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "tie_word_embeddings": False,
}

#: The VAE of Wan 2.2's 5 B as `AutoencoderKLWan` takes it, whose defaults are Wan 2.1's. The means
#: and deviations of its latents are read from its own folder.
_VAE_22: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}

#: The encoder of Wan 2.1's first frames (CLIP ViT-H/14), as transformers' `CLIPVisionConfig` takes
#: it.
IMAGE_ENCODER: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "projection_dim": 1024,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}

#: Wan's own negative prompt (`sample_neg_prompt` of its configuration), which Self Forcing, Causal
#: Forcing and Salt give the unconditional branch, too.
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，"
    "形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)


@dataclass(frozen=True)
class Published:
    """One published model."""

    hub: str
    transformer: dict[str, Any]
    #: Bytes of the parts' weights on the hub, float32; its keys are all parts that it has.
    bytes: dict[str, int]
    #: The arguments of `AutoencoderKLWan` that are not its defaults.
    vae: dict[str, Any] = field(default_factory=dict)
    #: Pixels a latent, along height and along width.
    spatial_factor: int = 8
    #: The time from which on `transformer` is the one of its two experts, below it
    #: `transformer_2`; None for a model of one.
    boundary: float | None = None

    @property
    def transformers(self) -> tuple[str, ...]:
        """The parts of its pipeline that are networks of its flow."""
        return tuple(part for part in self.bytes if part.startswith("transformer"))

    @property
    def codecs(self) -> tuple[str, ...]:
        """The other parts of its pipeline."""
        return tuple(part for part in self.bytes if part not in self.transformers)


_CODEC_BYTES = {"text_encoder": 22_700_000_000, "tokenizer": 21_000_000, "vae": 508_000_000}

_14B: dict[str, Any] = {
    **_TRANSFORMER,
    "num_attention_heads": 40,
    "ffn_dim": 13824,
    "num_layers": 40,
}
_EXPERTS_BYTES = {"transformer": 57_200_000_000, "transformer_2": 57_200_000_000}

#: Wan 2.1's image-to-video model; both resolutions have its structure.
_I2V: dict[str, Any] = {
    **_14B,
    "in_channels": 36,  # noise 16, mask 4, latents of the first frame and grey ones 16
    "image_dim": 1280,
    "added_kv_proj_dim": 5120,
}
_I2V_BYTES = {
    "transformer": 65_600_000_000,
    **_CODEC_BYTES,
    "image_encoder": 2_530_000_000,
    "image_processor": 1_000,
}

PUBLISHED = {
    "wan2.1-t2v-1.3b": Published(
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        {**_TRANSFORMER, "num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
        {"transformer": 5_680_000_000, **_CODEC_BYTES},
    ),
    "wan2.1-t2v-14b": Published(
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        _14B,
        {"transformer": 57_200_000_000, **_CODEC_BYTES},
    ),
    "wan2.1-i2v-14b-480p": Published("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", _I2V, _I2V_BYTES),
    "wan2.1-i2v-14b-720p": Published("Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", _I2V, _I2V_BYTES),
    "wan2.2-t2v-a14b": Published(
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers", _14B, {**_EXPERTS_BYTES, **_CODEC_BYTES}, boundary=0.875
    ),
    "wan2.2-i2v-a14b": Published(
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        {**_14B, "in_channels": 36},  # as Wan 2.1's, without CLIP
        {**_EXPERTS_BYTES, **_CODEC_BYTES},
        boundary=0.9,
    ),
    "wan2.2-ti2v-5b": Published(
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        {
            **_TRANSFORMER,
            "in_channels": 48,
            "out_channels": 48,
            "num_attention_heads": 24,
            "ffn_dim": 14336,
            "num_layers": 30,
        },
        {"transformer": 20_000_000_000, **_CODEC_BYTES, "vae": 2_820_000_000},
        vae=_VAE_22,
        spatial_factor=16,
    ),
}
