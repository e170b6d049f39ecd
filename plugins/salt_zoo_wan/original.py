"""A diffusers Wan in the names and files of Wan's own code and of those that grew from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from salt_zoo.core.errors import ZooError, did_you_mean
from salt_zoo.io.storage import atomic_file, atomic_folder

#: diffusers' names of modules and tensors, and Wan's; `blocks.N.` stands before the lower ones.
_TOP = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
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


_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


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
    """Wan's name for diffusers' one; None for a tensor that a text-to-video Wan does not have.

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


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers state dict under Wan's names, on the CPU and bit for bit.

    Raises:
        ZooError: it has tensors that are not of a text-to-video Wan (LoRA layers, an image branch).
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        name = original_name(without_wrappers(key))
        if name is None:
            raise ZooError(
                f"{key!r} has no name in Wan's text-to-video format; export a Wan transformer "
                "without an image branch, with its LoRA layers merged"
            )
        converted[name] = _packed(value)
    return converted


def check_target(path: Path | str, format: str) -> Format:
    """The format by name.

    Raises:
        ZooError: there is no such format, or the file's name does not end as its files do.
    """
    if format not in FORMATS:
        raise ZooError(f"format {format!r}: unknown; {did_you_mean(format, FORMATS)}")
    known = FORMATS[format]
    if not known.endings:
        if Path(path).suffix in _FILES:
            raise ZooError(
                f"{path}: the format {format!r} is a folder; name one, without an ending"
            )
        if Path(path).is_dir() and any(Path(path).iterdir()):
            raise ZooError(f"{path}: is a folder with something in it; choose another place")
    elif Path(path).suffix not in known.endings:
        raise ZooError(
            f"{path}: a file of the format {format!r} ends in {' or '.join(known.endings)}"
        )
    return known


def save_original(transformer: nn.Module, path: Path | str, format: str = "wan") -> None:
    """Write a diffusers transformer in a form that other codes read; whole, or not at all.

    The tensors keep their precision. Where the size adds coordinate channels to the input, the
    other code must add them, too.

    Args:
        transformer: a `WanTransformer3DModel`, for instance `network.transformer`.
        path: ends in `.safetensors` for `wan`, in `.pt` for the others.
        format: `wan` (plain names, Wan's own code), `self-forcing` (`{'generator': {'model.NAME':
            tensor}}`; Self Forcing, Causal Forcing, LongLive, Salt) or `self-forcing-ema` (the
            same as `generator_ema`, which those codes read as the average). `diffusers` is a
            folder, as stock diffusers reads it.

    Raises:
        ZooError: `format` or `path` is wrong, the network is not a text-to-video Wan, or the file
            cannot be written.
    """
    known = check_target(path, format)
    if not known.endings:
        with atomic_folder(Path(path)) as draft:
            save_transformer(transformer, draft)
        return
    state = to_original(transformer.state_dict())
    with atomic_file(Path(path)) as draft:
        if known.entry is None:
            safetensors.torch.save_file(state, draft, metadata={"format": "pt"})
        else:
            # through a file of ours: torch writes the name of one that it opens into it
            with open(draft, "wb") as file:
                torch.save({known.entry: {f"model.{k}": v for k, v in state.items()}}, file)


def save_transformer(transformer: Any, folder: Path) -> None:
    """Write a transformer as diffusers does, without the path that it was loaded from."""
    transformer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _packed(value: Tensor) -> Tensor:
    """`value` on the CPU with a storage of its own that holds nothing else."""
    value = value.detach().cpu().contiguous()
    whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
    return value if whole else value.clone()
