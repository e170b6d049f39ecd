"""Writing a Wan in the files of diffusers, of Wan's own code and of the codes built on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.io.files.storage import atomic_file, atomic_folder, check_file, check_folder
from salt_zoo_wan.checkpoint.formats import (
    ENDINGS,
    FORMATS,
    Format,
    original_name,
    without_wrappers,
)


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A diffusers state dict under Wan's names, on the CPU and bit for bit.

    Raises:
        ZooError: it has tensors that are not Wan's (LoRA layers).
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        name = original_name(without_wrappers(key))
        if name is None:
            raise ZooError(
                f"{key!r} has no name in Wan's format; export a Wan transformer with its LoRA "
                "layers merged"
            )
        converted[name] = _packed(value)
    return converted


def check_export_target(path: Path | str, format: str) -> Format:
    """The format by name.

    Raises:
        ZooError: there is no such format, the file's name does not end as its files do, or nothing
            can be written there.
    """
    if format not in FORMATS:
        raise ZooError(f"format {format!r}: unknown; {did_you_mean(format, FORMATS)}")
    known = FORMATS[format]
    if not known.endings:
        if Path(path).suffix in ENDINGS:
            raise ZooError(
                f"{path}: the format {format!r} is a folder; name one, without an ending"
            )
        if Path(path).is_dir() and any(Path(path).iterdir()):
            raise ZooError(f"{path}: is a folder that is not empty; choose another path")
        check_folder(Path(path))
    elif Path(path).suffix not in known.endings:
        raise ZooError(
            f"{path}: a file of the format {format!r} ends in {' or '.join(known.endings)}"
        )
    else:
        check_file(Path(path))
    return known


def export_transformer(
    transformer: nn.Module,
    path: Path | str,
    format: str = "wan",
    record: Mapping[str, Any] | None = None,
) -> None:
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
        record: as `save_transformer` takes it; files have none.

    Raises:
        ZooError: `format` or `path` is wrong, the network is not a Wan, or the file
            cannot be written.
    """
    known = check_export_target(path, format)
    if not known.endings:
        with atomic_folder(Path(path)) as draft:
            save_transformer(transformer, draft, record)
        return
    state = to_original(transformer.state_dict())
    with atomic_file(Path(path)) as draft:
        if known.entry is None:
            safetensors.torch.save_file(state, draft, metadata={"format": "pt"})
        else:
            # through a file of ours: torch writes the name of one that it opens into it
            with open(draft, "wb") as file:
                torch.save({known.entry: {f"model.{k}": v for k, v in state.items()}}, file)


def save_transformer(
    transformer: Any, folder: Path, record: Mapping[str, Any] | None = None
) -> None:
    """Write a transformer as diffusers does, without the path that it was loaded from.

    Args:
        record: more for its `config.json`: names that begin with `_`, which diffusers passes over.
    """
    transformer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    config |= record or {}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _packed(value: Tensor) -> Tensor:
    """`value` on the CPU with a storage of its own that holds nothing else."""
    value = value.detach().cpu().contiguous()
    whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
    return value if whole else value.clone()
