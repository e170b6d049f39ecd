"""The published configurations of Wan 2.1 (arXiv 2503.20314), for planning without files."""

from __future__ import annotations

from dataclasses import dataclass
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

#: diffusers' `AutoencoderKLWan` has Wan 2.1's own as its defaults.
VAE: dict[str, Any] = {}


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
    #: Bytes of the parts' weights on the hub, float32: transformer, text encoder and VAE.
    bytes: dict[str, int]


_CODEC_BYTES = {"text_encoder": 22_700_000_000, "vae": 508_000_000, "tokenizer": 21_000_000}

PUBLISHED = {
    "wan2.1-t2v-1.3b": Published(
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        {**_TRANSFORMER, "num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
        {"transformer": 5_680_000_000, **_CODEC_BYTES},
    ),
    "wan2.1-t2v-14b": Published(
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        {**_TRANSFORMER, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
        {"transformer": 57_200_000_000, **_CODEC_BYTES},
    ),
}
