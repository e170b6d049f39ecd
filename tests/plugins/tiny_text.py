"""Wan's kind of text encoder with random weights, of a few kB."""

from __future__ import annotations

from typing import Any


def text_encoder() -> Any:
    """Its weights are drawn from torch's own generator; the tokenizer is `ByT5Tokenizer()`."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=384, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        is_encoder_decoder=False,
    )  # fmt: skip
    return UMT5EncoderModel(config).eval()
