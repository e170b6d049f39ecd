"""Weights in the original format of Wan and of the codes that grew from it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from salt_zoo.core.errors import ZooError, reason
from salt_zoo_wan.configs import PUBLISHED
from salt_zoo_wan.networks_inside import Entry, unwrap
from salt_zoo_wan.original import original_name
from salt_zoo_wan.recognise import kind_of, shown
from salt_zoo_wan.weight_places import check_config, find_weights

#: What `torch.aminmax` reads as it is.
_ORDERED = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

__all__ = ["Entry", "load_original", "read_state", "unwrap"]


def load_original(
    source: Path | str | Mapping[str, Any],
    transformer_config: Mapping[str, Any],
    entry: Entry | None = None,
) -> WanTransformer3DModel:
    """A diffusers transformer from weights in Wan's original names, or in diffusers' own.

    In float32, whatever the file's precision (halves keep their values). Agrees with the original
    implementation to a relative error of about 2e-6.

    Args:
        source: a file, a folder or an index of shards, as `weight_places.find_weights` takes them,
            or a file's content: tensors by name, or the checkpoint of a training code with a
            generator beside a critic, optimizers, a step.
        transformer_config: arguments of `WanTransformer3DModel`.
        entry: which of a checkpoint's generators; None takes the average where there is one.

    Raises:
        ZooError: nothing is there, or it is damaged, or another model's, or its `config.json` says
            something else than `transformer_config`, or a tensor holds numbers that are not finite.
    """
    named = "the weights" if isinstance(source, Mapping) else str(source)
    if isinstance(source, Mapping):
        state = unwrap(source, named, entry)
        check_state(state, transformer_config, named)
    else:
        place = find_weights(Path(source))
        state = unwrap(place.read(), named, entry)
        check_state(state, transformer_config, named)
        check_config(place, transformer_config)
    _check_finite(state, named)
    with tempfile.TemporaryDirectory() as folder:  # without a local config diffusers asks the hub
        config = {"_class_name": "WanTransformer3DModel", **transformer_config}
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            return WanTransformer3DModel.from_single_file(state, config=folder)
        except Exception as error:  # diffusers raises many kinds
            raise ZooError(f"{named}: cannot be loaded ({reason(error)})") from None


def read_state(source: Path) -> dict[str, Tensor]:
    """A transformer's tensors by their bare names, not yet read where the file can be mapped.

    Raises:
        ZooError: nothing is there, or it is damaged, or holds no tensors, or several transformers.
    """
    return unwrap(find_weights(source).read(), str(source))


def _check_finite(state: Mapping[str, Tensor], named: str) -> None:
    """Refuse what would make every frame black."""
    for key, value in state.items():
        ends = value if value.dtype in _ORDERED else value.float()
        if value.numel() and not all(end.isfinite() for end in torch.aminmax(ends)):
            bad = int((~value.float().isfinite()).sum())
            raise ZooError(
                f"{named}: {key!r} has {bad} of {value.numel()} numbers that are not finite (NaN "
                "or infinite), so every video would be black; the training went wrong before they "
                "were saved, or the conversion overflowed: give an earlier checkpoint"
            )


def check_state(state: Mapping[str, Tensor], config: Mapping[str, Any], named: str) -> None:
    """Say in words what diffusers would say in a hundred lines.

    Raises:
        ZooError: the tensors' names, shapes or kinds are not those of `config`.
    """
    with torch.device("meta"):
        shapes = {
            k: tuple(v.shape) for k, v in WanTransformer3DModel(**config).state_dict().items()
        }
    original = {original_name(key) or key: shape for key, shape in shapes.items()}
    expected = size_in_words(config)
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
    found = found_size(state)
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


def found_size(state: Mapping[str, Tensor]) -> str | None:
    """The size of a Wan with these tensors, in the words of `size_in_words`; None for no Wan."""
    patches = state.get("patch_embedding.weight")
    if patches is None or patches.ndim != 5:
        return None
    blocks = {match[1] for key in state if (match := re.match(r"blocks\.(\d+)\.", key))}
    return _size(len(blocks), patches.shape[0], patches.shape[1])


def size_in_words(config: Mapping[str, Any]) -> str:
    """The size of a transformer for a message."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return _size(config["num_layers"], width, config["in_channels"])


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
