"""LoRA files of Wan: those of diffusers, ComfyUI and kohya's musubi-tuner.

Inside, a LoRA is its factors by the layers' names in diffusers: `weight += B A`, with `B` scaled.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.core.networks.lora import lora_layers
from salt_zoo.io.files.storage import atomic_file, check_file
from salt_zoo_wan.checkpoint.files import EXPERTS
from salt_zoo_wan.checkpoint.formats import original_name
from salt_zoo_wan.checkpoint.read import read_tensors

#: `A` `[rank, inputs]` and `B` `[outputs, rank]` by layer.
Factors = Mapping[str, tuple[Tensor, Tensor]]

LORA_FORMATS = ("lora", "lora-comfyui", "lora-kohya")
#: diffusers' own name of a LoRA in a pipeline's folder.
LORA_FILE = "pytorch_lora_weights.safetensors"
#: By the part of a pipeline that it belongs to.
LORA_FILES = dict(zip(EXPERTS, (LORA_FILE, "pytorch_lora_weights_2.safetensors"), strict=True))

#: What may stand before a layer's name.
_PREFIXES = ("transformer.", "diffusion_model.", "base_model.model.", "model.")
_PARTS = {
    "lora_A.weight": "A",
    "lora_A.default.weight": "A",
    "lora_down.weight": "A",
    "lora_B.weight": "B",
    "lora_B.default.weight": "B",
    "lora_up.weight": "B",
    "alpha": "alpha",
}
_ONE = torch.ones(())


def check_lora_target(path: Path, format: str) -> None:
    """A ZooError for a format that is none of a LoRA, or a file that has another ending or cannot
    be written."""
    if format not in LORA_FORMATS:
        raise ZooError(f"format {format!r}: no LoRA's; {did_you_mean(format, LORA_FORMATS)}")
    if path.suffix != ".safetensors":
        raise ZooError(f"{path}: a file of the format {format!r} ends in .safetensors")
    check_file(path)


def adapter_factors(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """The adapters of a trained network (`salt_zoo.core.networks.lora`) with their scale in `B`."""
    return {
        name.removeprefix("transformer."): (
            layer.lora_A.detach().float().cpu(),
            layer.scale * layer.lora_B.detach().float().cpu(),
        )
        for name, layer in lora_layers(network).items()
    }


def write_lora(
    factors: Factors, path: Path, format: str, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a LoRA whole or not at all. No reader has to know its scale: it is in `B`.

    Args:
        format: `lora` (diffusers' `load_lora_weights`), `lora-comfyui`, or `lora-kohya`, whose
            `alpha` is the rank.
        metadata: for the file's header.

    Raises:
        ZooError: `format` or `path` is wrong, or the file cannot be written.
    """
    check_lora_target(path, format)
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in factors.items():
        a, b = a.contiguous(), b.contiguous()
        if format == "lora":
            start = f"transformer.{layer}"
            tensors |= {f"{start}.lora_A.weight": a, f"{start}.lora_B.weight": b}
            continue
        theirs = (original_name(f"{layer}.weight") or "").removesuffix(".weight")
        if not theirs:
            raise ZooError(f"{layer!r} has no name in Wan's format; write 'lora'")
        if format == "lora-comfyui":
            start = f"diffusion_model.{theirs}"
            tensors |= {f"{start}.lora_A.weight": a, f"{start}.lora_B.weight": b}
        else:
            start = f"lora_unet_{theirs.replace('.', '_')}"
            tensors |= {f"{start}.lora_down.weight": a, f"{start}.lora_up.weight": b}
            tensors[f"{start}.alpha"] = torch.tensor(float(len(a)))
    with atomic_file(path) as draft:
        safetensors.torch.save_file(tensors, draft, metadata={"format": "pt", **(metadata or {})})


def read_lora(
    path: Path, layers: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors of a LoRA file in any of the formats that `write_lora` writes, or in peft's.

    Without an `alpha` the scale is 1, as all readers have it, or what diffusers' metadata say.

    Args:
        layers: shapes of the weights of the model's linear layers, by diffusers' names.

    Raises:
        ZooError: it is no such LoRA (DoRA, LoKr, differences of biases), or of another model.
    """
    if path.suffix != ".safetensors":
        raise ZooError(f"{path}: a LoRA is read from a .safetensors file only; convert it")
    content = read_tensors(path)
    known = _known_names(layers)
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in content.items():
        bare = name
        while start := next((p for p in _PREFIXES if bare.startswith(p)), None):
            bare = bare.removeprefix(start)
        part = next((part for part in _PARTS if bare.endswith(f".{part}")), None)
        if part is None:
            raise ZooError(
                f"{path}: {name!r} is no part of a plain LoRA (lora_A and lora_B, or lora_down and "
                "lora_up, with alpha); merge it into its base model with the code that made it"
            )
        layer = known.get(bare.removesuffix(f".{part}"))
        if layer is None:
            raise ZooError(f"{path}: {name!r} belongs to no linear layer of this size of Wan")
        if found.setdefault(layer, {}).setdefault(_PARTS[part], value) is not value:
            raise ZooError(f"{path}: holds the LoRA of {layer!r} twice, under several names")
    if not found:
        raise ZooError(f"{path}: holds no LoRA")
    stored = _stored_scale(path)
    factors = {}
    for layer, parts in found.items():
        if not {"A", "B"} <= parts.keys():
            raise ZooError(f"{path}: the LoRA of {layer!r} has only one of its two factors")
        a, b = parts["A"].float(), parts["B"].float()
        if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1]) != tuple(layers[layer]):
            raise ZooError(
                f"{path}: the LoRA of {layer!r} is {list(b.shape)} by {list(a.shape)}, the layer "
                f"{list(layers[layer])}; it belongs to another size"
            )
        if a.shape[0] == b.shape[1] > 0 and parts.get("alpha", _ONE).numel() == 1:
            b = b * (float(parts["alpha"]) / len(a) if "alpha" in parts else stored)
            if a.isfinite().all() and b.isfinite().all():
                factors[layer] = a, b
                continue
        raise ZooError(f"{path}: the LoRA of {layer!r} is damaged; download it again")
    return factors


def _known_names(layers: Mapping[str, Any]) -> dict[str, str]:
    """A layer by each of the names that it has in files."""
    known = {}
    for layer in layers:
        known[layer] = layer
        theirs = (original_name(f"{layer}.weight") or "").removesuffix(".weight")
        if theirs:
            known[theirs] = known[f"lora_unet_{theirs.replace('.', '_')}"] = layer
    return known


def _stored_scale(path: Path) -> float:
    """The scale in the metadata of diffusers' `save_lora_weights`; 1 where there are none.

    Raises:
        ZooError: they give layers scales of their own.
    """
    with safe_open(path, framework="pt") as file:
        stored = (file.metadata() or {}).get("lora_adapter_metadata")
    if stored is None:
        return 1.0
    try:
        values = {
            re.sub(r"^transformer\.", "", key): value for key, value in json.loads(stored).items()
        }
        plain = not (values.get("alpha_pattern") or values.get("rank_pattern"))
        rank, alpha = values["r"], values["lora_alpha"]
        if plain and not values.get("use_dora") and type(rank) is int and type(alpha) is not str:
            scale = float(alpha) / float(rank**0.5 if values.get("use_rslora") else rank)
            if 0 < scale < math.inf:
                return scale
    except (
        ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError,
    ):  # fmt: skip
        pass
    raise ZooError(
        f"{path}: its scale cannot be told from 'lora_adapter_metadata' (scales by layer, DoRA); "
        "fuse it in diffusers (fuse_lora) and give the whole transformer"
    )


@torch.no_grad()
def merge_lora(transformer: nn.Module, path: Path) -> None:
    """Add a LoRA file to the weights of a diffusers transformer, in place.

    Raises:
        ZooError: as `read_lora`.
    """
    modules = {n: m for n, m in transformer.named_modules() if isinstance(m, nn.Linear)}
    factors = read_lora(path, {name: tuple(m.weight.shape) for name, m in modules.items()})
    for name, (a, b) in factors.items():
        weight = modules[name].weight
        weight += (b @ a).to(weight)
