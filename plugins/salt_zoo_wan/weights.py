"""Weights in the original format of Wan and of the codes that grew from it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from salt_zoo.errors import ZooError, reason
from salt_zoo_wan.configs import PUBLISHED
from salt_zoo_wan.original import original_name, without_wrappers
from salt_zoo_wan.recognise import is_lora, kind_of, kind_of_entries, shown
from salt_zoo_wan.weight_files import read_weights

#: A generator in a checkpoint of Self Forcing, Causal Forcing, LongLive or Salt.
Entry = Literal["generator_ema", "generator"]

#: The entries that are looked for, in this order: the average of the weights comes first.
ENTRIES: tuple[Entry, ...] = ("generator_ema", "generator")
#: Entries in which other codes keep all tensors, or the former entries.
_OUTER = ("model", "state_dict", "module")


def load_original(
    source: Path | str | Mapping[str, Any],
    transformer_config: Mapping[str, Any],
    entry: Entry | None = None,
) -> WanTransformer3DModel:
    """A diffusers transformer from weights in Wan's original names, or in diffusers' own.

    In float32, whatever the file's precision (halves keep their values). Agrees with the original
    implementation to a relative error of about 2e-6.

    Args:
        source: a `.safetensors` or `.pth`/`.pt` file, or its content: tensors by name, or the
            checkpoint of a training code with a generator beside a critic, optimizers, a step.
        transformer_config: arguments of `WanTransformer3DModel`.
        entry: which of a checkpoint's generators; None takes the average where there is one.

    Raises:
        ZooError: the file is missing or damaged, or its tensors are not those of the configuration.
    """
    named = "the weights" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else read_weights(Path(source))
    state = unwrap(content, named, entry)
    _check(state, transformer_config, named)
    with tempfile.TemporaryDirectory() as folder:  # without a local config diffusers asks the hub
        config = {"_class_name": "WanTransformer3DModel", **transformer_config}
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            return WanTransformer3DModel.from_single_file(state, config=folder)
        except Exception as error:  # diffusers raises many kinds
            raise ZooError(f"{named}: cannot be loaded ({reason(error)})") from None


def unwrap(
    content: Mapping[str, Any], named: str = "the weights", entry: Entry | None = None
) -> dict[str, Tensor]:
    """The named tensors inside a training code's checkpoint, without wrappers' prefixes.

    Args:
        content: tensors by name, or entries one of which holds them.
        named: what messages call it.
        entry: which generator; None takes the average where there is one.

    Raises:
        ZooError: there is no generator, or not the one that was asked for.
    """
    state: dict[str, Tensor] = {}
    for key, value in _generator(content, named, entry).items():
        if not isinstance(key, str):
            raise ZooError(f"{named}: holds {str(key)[:60]!r} where a tensor's name should be")
        is_tensor = isinstance(value, Tensor)
        if "." not in key and (not is_tensor or value.ndim == 0):
            continue  # a step, a configuration: every tensor of Wan that counts has dimensions
        if not is_tensor:
            raise ZooError(f"{named}: {key!r} is a {type(value).__name__}, not a tensor")
        name = without_wrappers(key)
        if name in state:
            raise ZooError(f"{named}: holds {name!r} twice, with and without a wrapper's prefix")
        state[name] = value
    return state


def _generator(content: Mapping[str, Any], named: str, entry: Entry | None) -> Mapping[str, Any]:
    """The innermost mapping, whose values are tensors."""
    inner, chosen = content, False
    for _ in range(8):  # entries in entries; a pickle may even hold itself
        groups = _groups(inner)
        wanted = () if chosen else (entry,) if entry else ENTRIES
        key = next((key for key in (*wanted, *_OUTER) if key in groups), None)
        if key is None:
            break
        if key in wanted:
            chosen = True
            loras = [other for other in groups if is_lora(other)]
            if loras and not entry:
                raise ZooError(
                    f"{named}: beside {key!r} it holds a LoRA that is not merged into it "
                    f"({shown(loras)}); merge it first, or say that {key!r} alone is meant"
                )
        inner = groups[key]
    if entry and not chosen:
        others = shown(_groups(content)) or "tensors without an entry"
        raise ZooError(f"{named}: has no {entry!r} but {others}; choose what it has")
    if not any(isinstance(value, Tensor) for key, value in inner.items() if "." in str(key)):
        if any("." in str(key) for key in inner):
            return inner  # names with something else than tensors: said where they are read
        raise ZooError(
            f"{named}: {kind_of_entries(inner)}; expected a Wan transformer's tensors, or a "
            "checkpoint with 'generator_ema' or 'generator'"
        )
    return inner


def _groups(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries that hold something by name; `generator.NAME` is one in a flat file, too."""
    groups = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Mapping) and value
    }
    for key in ENTRIES:
        start = f"{key}."
        flat = {
            name.removeprefix(start): value
            for name, value in content.items()
            if isinstance(name, str) and name.startswith(start)
        }
        if flat:
            groups.setdefault(key, flat)
    return groups


def _check(state: Mapping[str, Tensor], config: Mapping[str, Any], named: str) -> None:
    """Say in words what diffusers would say in a hundred lines."""
    with torch.device("meta"):
        shapes = {
            k: tuple(v.shape) for k, v in WanTransformer3DModel(**config).state_dict().items()
        }
    original = {original_name(key) or key: shape for key, shape in shapes.items()}
    width = config["num_attention_heads"] * config["attention_head_dim"]
    expected = _size(config["num_layers"], width, config["in_channels"])
    kind = None if state.keys() in (original.keys(), shapes.keys()) else kind_of(state)
    if kind:
        raise ZooError(f"{named}: {kind}; expected a text-to-video Wan of {expected}")
    patches = state.get("patch_embedding.weight")
    if patches is None or patches.ndim != 5:
        first = shown(state, 1) or "nothing"
        raise ZooError(
            f"{named}: not a Wan transformer (it has no 'patch_embedding.weight', but {first}); "
            f"expected one of {expected}"
        )
    blocks = {match[1] for key in state if (match := re.match(r"blocks\.(\d+)\.", key))}
    found = _size(len(blocks), patches.shape[0], patches.shape[1])
    if patches.shape[1] == 36 and config["in_channels"] != 36:
        found = f"an image-to-video model, {found}"
    if found != expected:
        raise ZooError(
            f"{named}: {found}; expected {expected}: choose the size that the file belongs to"
        )
    # which names it has is decided by which it has more of, for a message about the others
    wanted = max((original, shapes), key=lambda names: len(names.keys() & state.keys()))
    missing, extra = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing:
        raise ZooError(
            f"{named}: not whole, or of another model: {len(missing)} of {len(wanted)} tensors are "
            f"not there ({shown(sorted(missing), 2)})"
            + (f"; others are unknown ({shown(sorted(extra), 2)})" if extra else "")
        )
    if extra:
        raise ZooError(
            f"{named}: of another model: {len(extra)} tensors are not Wan's "
            f"({shown(sorted(extra), 2)}); expected the {len(wanted)} of {expected}"
        )
    for key, shape in wanted.items():
        if tuple(state[key].shape) != shape:
            raise ZooError(
                f"{named}: {key!r} is {_shape(state[key].shape)}, expected {_shape(shape)}; the "
                "file is of another model"
            )
        if not state[key].is_floating_point():
            kind = str(state[key].dtype).removeprefix("torch.")
            raise ZooError(f"{named}: {key!r} is of {kind} numbers (quantised?), expected floats")


def _size(layers: int, width: int, channels: int) -> str:
    """A size in words, by its published name where it has one."""
    words = f"{layers} blocks of width {width} with {channels} input channels"
    for name, published in PUBLISHED.items():
        known = published.transformer
        size = (known["num_layers"], known["num_attention_heads"] * known["attention_head_dim"])
        if size == (layers, width) and channels == known["in_channels"]:
            return f"{words} ({name})"
    return words


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
