"""Identifying checkpoints that are not the Wan that was expected, by their tensors' names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_LORA = re.compile(
    r"(^|[._])(lora|loha|lokr|hada|oft|boft|vera|ia3|dora)_|(^|\.)(lokr|loha|hada|oft|lycoris)(_|\.)"
    r"|\.(diff|diff_b|diff_m|set_weight)$|\.(lora|lora_linear_layer)\."
)

#: Of a model with an image branch where one without is expected.
IMAGE_TO_VIDEO = "an image-to-video model (it has an image branch, 'img_emb')"

#: Patterns of names without wrappers' prefixes; the first that occurs says what the file is.
_KINDS = (
    (
        _LORA,
        "a LoRA or differences, not a whole model: merge it into its base model and give that (for "
        "backbone.initial a list merges LoRA files: [BASE, LORA])",
    ),
    (
        re.compile(r"(^|\.)_?flat_param"),
        "one process's part of an FSDP training: save its full state dict",
    ),
    (
        re.compile(
            r"(^|\.)(scaled_fp8|scale_weight|scale_input|comfy_quant|qweight|qzeros|g_idx|SCB)$"
            r"|[._](weight|input|output)_(scale|zero_point|packed|shape)(_inv|_2)?$|[._]w?scales$"
            r"|\.(quant_state|quant_map|absmax|nested_absmax|nested_quant_map|wzeros|smooth_factor)"
            r"|\.(_data|_scale|__qdata|__scale)$|(^|\.)weight_format$"
        ),
        "a quantised model: give the weights that it was made from (bf16, fp16 or fp32)",
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
        IMAGE_TO_VIDEO,
    ),
)
_CRITICS = ("critic", "critic_ema", "fake_score", "fake_score_ema", "real_score", "discriminator")


def identify_checkpoint(names: Iterable[str]) -> str | None:
    """The kind of model that has tensors of these names; None where it may be a Wan."""
    names = list(names)
    shared = _shared_words(names)
    for pattern, what in _KINDS:
        for cut in range(len(shared) + 1):  # under whatever prefix they all stand
            start = "".join(f"{word}." for word in shared[:cut])
            if any(pattern.search(name.removeprefix(start)) for name in names):
                return what
    return None


def _shared_words(names: list[str]) -> list[str]:
    """The words with which all names begin; each name has at least one more."""
    words = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


def is_lora(entry: str) -> bool:
    """Whether a checkpoint's entry of this name is a LoRA, as LongLive's `generator_lora` is."""
    return "lora" in entry.lower()


def identify_entries(content: Mapping[str, Any]) -> str:
    """The kind of a checkpoint without a generator, by its entries."""
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
    return identify_checkpoint(inside) or f"a checkpoint of {shown(entries)}"


def shown(names: Iterable[str], limit: int = 4) -> str:
    """The first names for a message."""
    names = list(names)
    words = ", ".join(repr(name[:60]) for name in names[:limit])
    return f"{words} and {len(names) - limit} more" if len(names) > limit else words
