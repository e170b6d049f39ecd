"""What a file of weights is that is not the wanted one, told from its tensors' names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_LORA = re.compile(r"(^|\.)(lora|loha|lokr|hada)_")

#: Patterns of names without wrappers' prefixes; the first that occurs says what the file is.
_KINDS = (
    (
        _LORA,
        "a LoRA, not a whole model: merge it into its base model and give the result",
    ),
    (
        re.compile(r"(^|\.)_?flat_param"),
        "one process's part of an FSDP training: save its full state dict",
    ),
    (
        re.compile(r"(^|\.)(scaled_fp8|scale_weight|weight_scale|scale_input)$"),
        "a quantised model: give the weights that it was made from",
    ),
    (re.compile(r"^(critic|fake_score|real_score)\."), "a critic, not a generator"),
    (
        re.compile(
            r"^(shared|token_embedding)\.weight$|^(encoder\.)?block\.\d+\.layer\."
            r"|^encoder\.(embed_tokens|block)\.|^blocks\.\d+\.ffn\.gate\."
        ),
        "a text encoder",
    ),
    (re.compile(r"^(visual|textual|vision_model|text_model)\."), "an image encoder (CLIP)"),
    (
        re.compile(
            r"^(encoder|decoder)\.(conv|middle|mid_block|(down|up)(samples|_blocks|\.)|head|norm)"
            r"|^(post_)?quant_conv\."
        ),
        "a VAE",
    ),
    (re.compile(r"^vace_"), "a VACE model (editing), not text-to-video"),
    (re.compile(r"^(motion_encoder|face_adapter)\."), "a Wan Animate model, not text-to-video"),
    (
        re.compile(r"^img_emb\.|\.image_embedder\.|\.(k_img|add_k_proj)\."),
        "an image-to-video model (it has an image branch, 'img_emb')",
    ),
)
_CRITICS = ("critic", "critic_ema", "fake_score", "fake_score_ema", "real_score", "discriminator")


def kind_of(names: Iterable[str]) -> str | None:
    """What another model with tensors of these names is; None for what may be a Wan."""
    names = list(names)
    for pattern, what in _KINDS:
        if any(pattern.search(name) for name in names):
            return what
    return None


def is_lora(entry: str) -> bool:
    """Whether a checkpoint's entry of this name is a LoRA, as LongLive's `generator_lora` is."""
    return "lora" in entry.lower()


def kind_of_entries(content: Mapping[str, Any]) -> str:
    """What a checkpoint without a generator is, by the entries that it has."""
    entries = {str(key): value for key, value in content.items()}
    groups = [key for key, value in entries.items() if isinstance(value, Mapping)]
    if not entries:
        return "empty"
    if any(is_lora(key) for key in groups):
        return f"a LoRA, not a whole model ({shown(groups)}): merge it into its base model"
    if "param_groups" in entries:
        return "an optimizer's state"
    if any(key in _CRITICS for key in groups):
        return f"a critic, not a generator ({shown(groups)})"
    inside = (
        name
        for key in groups
        for name, value in entries[key].items()
        if isinstance(value, Tensor) and isinstance(name, str)
    )
    return kind_of(inside) or f"a checkpoint of {shown(entries)}"


def shown(names: Iterable[str], limit: int = 4) -> str:
    """The first names for a message."""
    names = list(names)
    words = ", ".join(repr(name[:60]) for name in names[:limit])
    return f"{words} and {len(names) - limit} more" if len(names) > limit else words
