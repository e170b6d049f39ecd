"""Names of tensors and files in diffusers, in Wan's own code and in the codes built on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: diffusers' names of modules and tensors, and Wan's; `blocks.N.` stands before the lower ones.
_TOP = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
}
_ATTENTION = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "norm_q": "norm_q",
    "norm_k": "norm_k",
}
_BLOCK = {
    **{f"attn1.{ours}": f"self_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"attn2.{ours}": f"cross_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    "norm2": "norm3",  # the norm before the cross-attention, Wan's third and diffusers' second
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
_TABLE = "scale_shift_table"

#: What wrappers (FSDP, DDP, torch.compile, activation checkpointing) put into names, anywhere.
WRAPPERS = {
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_fpw_module",
    "_fsdp_wrapped_module",
    "_orig_mod",
    "module",
}
#: What stands before all of a network's names (score wrappers, ComfyUI, our own networks).
_OUTER = {"model", "diffusion_model", "transformer"}


#: How files of weights end.
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Format:
    """A way to write a Wan: the file's endings (none: it is a folder), and the entry in which the
    tensors lie."""

    endings: tuple[str, ...]
    #: None: the tensors' names are the file's own.
    entry: str | None = None


#: Self Forcing's file is LongLive's, Causal Forcing's and Salt's, too.
FORMATS: Mapping[str, Format] = {
    "wan": Format((".safetensors",)),
    "self-forcing": Format((".pt", ".pth"), "generator"),
    "self-forcing-ema": Format((".pt", ".pth"), "generator_ema"),
    "diffusers": Format(()),
}


def without_wrappers(name: str) -> str:
    """A tensor's name as the bare transformer has it.

    >>> without_wrappers("model._fsdp_wrapped_module.blocks.0._orig_mod.ffn.0.bias")
    'blocks.0.ffn.0.bias'
    """
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while len(parts) > 1 and parts[0] in _OUTER:
        parts = parts[1:]
    return ".".join(parts)


def original_name(name: str) -> str | None:
    """Wan's name for diffusers' one; None for a tensor that Wan's own models do not have.

    >>> original_name("blocks.7.attn2.to_out.0.weight")
    'blocks.7.cross_attn.o.weight'
    """
    block = re.match(r"blocks\.\d+\.", name)
    start = block[0] if block else ""
    rest = name[len(start) :]
    if rest == _TABLE:
        return f"{start}modulation" if block else "head.modulation"
    module, _, kind = rest.rpartition(".")
    theirs = (_BLOCK if block else _TOP).get(module)
    return f"{start}{theirs}.{kind}" if theirs and kind in ("weight", "bias") else None
