"""Comparing a state dict with the Wan transformer that it should be."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo_wan.checkpoint.formats import original_name
from salt_zoo_wan.checkpoint.identify import IMAGE_TO_VIDEO, identify_checkpoint, shown
from salt_zoo_wan.published_configs import PUBLISHED


def check_state_dict(state: Mapping[str, Tensor], config: Mapping[str, Any], named: str) -> None:
    """Check names, shapes and dtypes of a state dict; one line where diffusers prints hundreds.

    Raises:
        ZooError: names, shapes or dtypes of the tensors do not match `config`.
    """
    shapes = parameter_shapes(config)
    original = {original_name(key) or key: shape for key, shape in shapes.items()}
    expected = describe_config(config)
    kind = None if state.keys() in (original.keys(), shapes.keys()) else identify_checkpoint(state)
    if kind == IMAGE_TO_VIDEO and config.get("image_dim") is not None:
        kind = None  # what is wrong with it is told below
    if kind:
        raise ZooError(f"{named}: {kind}; expected {kind_of(config)} Wan of {expected}")
    patches = state.get("patch_embedding.weight")
    if patches is None or patches.ndim != 5:
        first = shown(state, 1) or "nothing"
        raise ZooError(
            f"{named}: not a Wan transformer (it has no 'patch_embedding.weight', but {first}); "
            f"expected one of {expected}"
        )
    found = describe_state_dict(state)
    if patches.shape[1] == 36 and config["in_channels"] != 36:
        found = f"an image-to-video model, {found}"
    if found != expected:
        raise ZooError(
            f"{named}: {found}; expected {expected}: choose the size that the file belongs to"
        )
    # whichever naming matches more tensors; the message is about the rest
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


def parameter_shapes(config: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
    """The shapes of a transformer's tensors by diffusers' names; not to be changed."""
    return _shapes(
        tuple(
            (key, tuple(value) if isinstance(value, list) else value)
            for key, value in sorted(config.items())
        )
    )


@functools.lru_cache(maxsize=32)
def _shapes(config: tuple[tuple[str, Any], ...]) -> Mapping[str, tuple[int, ...]]:
    """Once for a configuration: a whole transformer is made, which every load would wait for."""
    with torch.device("meta"):
        state = WanTransformer3DModel(**dict(config)).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def describe_state_dict(state: Mapping[str, Tensor]) -> str | None:
    """The size of a Wan with these tensors, in the words of `describe_config`; None for no Wan."""
    patches = state.get("patch_embedding.weight")
    if patches is None or patches.ndim != 5:
        return None
    blocks = {match[1] for key in state if (match := re.match(r"blocks\.(\d+)\.", key))}
    return _size(len(blocks), patches.shape[0], patches.shape[1])


def describe_config(config: Mapping[str, Any]) -> str:
    """The size of a transformer for a message."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return _size(config["num_layers"], width, config["in_channels"])


def kind_of(config: Mapping[str, Any]) -> str:
    """In words, with its article."""
    return "a text-to-video" if config.get("image_dim") is None else "an image-to-video"


def _size(layers: int, width: int, channels: int) -> str:
    """A size in words, by its published name where it has one."""
    words = f"{layers} blocks of width {width} with {channels} input channels"
    names = []
    for name, published in PUBLISHED.items():
        known = published.transformer
        size = (known["num_layers"], known["num_attention_heads"] * known["attention_head_dim"])
        alone = published.boundary is None
        if alone and size == (layers, width) and channels == known["in_channels"]:
            names.append(name)
    return f"{words} ({' or '.join(names)})" if names else words


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
