"""Weights in the original format of Wan and of the codes that grew from it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import safetensors.torch
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import SafetensorError
from torch import Tensor

from salt_zoo.errors import ZooError

#: Under which key training codes keep a generator, the averaged one first (Self Forcing, Salt).
_WRAPPERS = ("generator_ema", "generator", "model", "state_dict")
#: What wrappers (FSDP, torch.compile, score wrappers) put before every key.
_PREFIXES = ("model.", "_fsdp_wrapped_module.", "_orig_mod.", "module.")


def load_original(
    source: Path | str | Mapping[str, Any], transformer_config: Mapping[str, Any]
) -> WanTransformer3DModel:
    """A diffusers transformer from weights in Wan's original names, or in diffusers' own.

    Agrees with the original implementation to a relative error of about 2e-6 in float32.

    Args:
        source: a `.safetensors` or `.pth`/`.pt` file, or its content. `{'generator_ema': ...}` and
            `{'generator': ...}` are unwrapped and `model.` is taken off the keys.
        transformer_config: arguments of `WanTransformer3DModel`.

    Raises:
        ZooError: the file is missing or damaged, or its tensors are not those of the configuration.
    """
    named = "the weights" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else read_weights(Path(source))
    state = unwrap(content, named)
    _check(state, transformer_config, named)
    with tempfile.TemporaryDirectory() as folder:  # without a local config diffusers asks the hub
        config = {"_class_name": "WanTransformer3DModel", **transformer_config}
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            return WanTransformer3DModel.from_single_file(dict(state), config=folder)
        except NotImplementedError:  # a tensor was never filled, and cannot leave the meta device
            raise ZooError(
                f"{named}: some tensors' names are not Wan's; the file is of another model"
            ) from None
        except Exception as error:  # diffusers raises many kinds
            raise ZooError(f"{named}: cannot be loaded ({_first_line(error)})") from None


def read_weights(path: Path) -> Mapping[str, Any]:
    """The content of a `.safetensors` file or of a pickle without code (`weights_only`)."""
    if not path.is_file():
        raise ZooError(f"{path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except SafetensorError as error:
        raise ZooError(
            f"{path}: not a whole safetensors file ({_first_line(error)}); fetch it again"
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise ZooError(
            f"{path}: not a whole weights file that torch can read without running code in it "
            f"({_first_line(error)}); fetch it again, or convert it to .safetensors"
        ) from None
    if not isinstance(content, Mapping):
        raise ZooError(f"{path}: holds a {type(content).__name__}, not named tensors")
    return content


def unwrap(content: Mapping[str, Any], named: str = "the weights") -> dict[str, Tensor]:
    """The named tensors inside a training code's checkpoint, without wrappers' prefixes."""
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return unwrap(content[key], named)
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise ZooError(f"{named}: {key!r} is a {type(value).__name__}, not a tensor")
        for prefix in ("model.diffusion_model.", *_PREFIXES):
            while key.startswith(prefix):
                key = key.removeprefix(prefix)
        state[key.replace("_fsdp_wrapped_module.", "")] = value
    return state


def _check(state: Mapping[str, Tensor], config: Mapping[str, Any], named: str) -> None:
    """Say in words what diffusers would say in a hundred lines."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    patches = state.get("patch_embedding.weight")
    if patches is None:
        first = next(iter(state), "nothing")
        raise ZooError(
            f"{named}: not a Wan transformer; it has no 'patch_embedding.weight' (but {first!r})"
        )
    blocks = {key.split(".")[1] for key in state if key.startswith("blocks.")}
    wanted = (width, config["in_channels"], *config["patch_size"])
    if tuple(patches.shape) != wanted or len(blocks) != config["num_layers"]:
        raise ZooError(
            f"{named}: {len(blocks)} blocks of width {patches.shape[0]} with {patches.shape[1]} "
            f"input channels; the size has {config['num_layers']} of {width} with "
            f"{config['in_channels']}: choose the size that the file belongs to"
        )
    original = "head.head.weight" in state
    with torch.device("meta"):
        count = len(WanTransformer3DModel(**config).state_dict())
    if len(state) != count:
        kind = "original" if original else "diffusers"
        raise ZooError(
            f"{named}: {len(state)} tensors in {kind} names, the size has {count}; "
            "the file is of another model or not whole"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
