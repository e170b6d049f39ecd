"""The `config.json` beside a transformer's weights, in diffusers' keys or in Wan's own."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo.core.base.errors import ZooError
from salt_zoo_wan.checkpoint.files import CheckpointFiles
from salt_zoo_wan.published_configs import IMAGE_ENCODER

#: Wan's own names of what diffusers' configuration has under another name.
_WAN_KEYS = {
    "dim": "width",
    "num_heads": "num_attention_heads",
    "in_dim": "in_channels",
    "out_dim": "out_channels",
    "ffn_dim": "ffn_dim",
    "freq_dim": "freq_dim",
    "num_layers": "num_layers",
    "eps": "eps",
    "text_dim": "text_dim",
    "patch_size": "patch_size",
    "cross_attn_norm": "cross_attn_norm",
}
#: The classes of Wan's transformers, in Wan's own code, Self Forcing's, diffusers'.
_WAN_CLASSES = (
    "WanModel",
    "CausalWanModel",
    "WanTransformer3DModel",
    "CausalWanTransformer3DModel",
)
#: Keys that change nothing of what the weights mean.
_HARMLESS = (
    "model_type",
    "text_len",
    "window_size",
    "qk_norm",
    "dtype",
    "torch_dtype",
    "local_attn_size",
    "sink_size",
)


def read_config(path: Path, image_branch: bool) -> dict[str, Any]:
    """The keys of a transformer's `config.json` under diffusers' names, Wan's own translated.

    Args:
        image_branch: whether an image-to-video transformer is expected to have one. Wan's own file
            does not say: Wan 2.1's, which have one, and Wan 2.2's A14B, which have none, both have
            `model_type: i2v` and `in_dim: 36`, and nothing else tells them apart.

    Raises:
        ZooError: it is damaged, or of another model.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ZooError(
            f"{path}: cannot be loaded ({type(error).__name__}); download it again"
        ) from None
    kind = content.get("_class_name") if isinstance(content, dict) else None
    if kind not in _WAN_CLASSES:
        raise ZooError(
            f"{path}: cannot be loaded, not the configuration of a Wan transformer (its class is "
            f"{str(kind)[:60]!r}); expected {' or '.join(_WAN_CLASSES[:3:2])}"
        )
    if "dim" not in content:  # diffusers' own names
        return {k: v for k, v in content.items() if not k.startswith("_")}
    if (model := content.get("model_type", "t2v")) not in ("t2v", "i2v", "ti2v"):
        raise ZooError(
            f"{path}: a Wan of the kind {str(model)[:20]!r}; expected text- or image-to-video"
        )
    own = {_WAN_KEYS[key]: value for key, value in content.items() if key in _WAN_KEYS}
    width, heads = own.pop("width"), own.get("num_attention_heads")
    if not (isinstance(width, int) and isinstance(heads, int) and heads > 0):
        raise ZooError(
            f"{path}: cannot be loaded, dim and num_heads are not numbers; download it again"
        )
    if model == "i2v" and image_branch:  # CLIP's width, which Wan's own code has as a constant
        own |= {"image_dim": IMAGE_ENCODER["hidden_size"], "added_kv_proj_dim": width}
    return {**own, "attention_head_dim": width // heads}


def check_config(place: CheckpointFiles, wanted: Mapping[str, Any]) -> None:
    """Refuse a `config.json` beside the weights that says something else than `wanted`.

    The weights' shapes have been checked; this is for what shapes do not show (`eps`, a norm).

    Raises:
        ZooError: the line names the key and both values.
    """
    if place.config is None:
        return
    whole = _with_defaults(wanted)
    for key, value in read_config(place.config, _has_image_branch(wanted)).items():
        if key not in whole:
            if value is None or key in _HARMLESS:
                continue
            raise ZooError(
                f"{place.config}: {key}: unknown key of a Wan transformer; if it changes nothing "
                "that the network computes, remove it"
            )
        given = list(value) if isinstance(value, list | tuple) else value
        if given != whole[key] or isinstance(given, bool) != isinstance(whole[key], bool):
            raise ZooError(
                f"{place.config}: {key} is {str(given)[:40]}, expected {whole[key]} as the size "
                "has it; the file was changed, or belongs to other weights"
            )


def read_arguments(config: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `config.json` are arguments of `WanTransformer3DModel`; the rest is looked at where
    the weights are loaded.

    Args:
        wanted: those of the size, of which is taken what Wan's own file does not say.
    """
    known = inspect.signature(WanTransformer3DModel.__init__).parameters
    found = read_config(config, _has_image_branch(wanted))
    return {key: value for key, value in found.items() if key in known}


def _has_image_branch(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("image_dim") is not None


def without_defaults(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the transformer that are no defaults, tuples as lists: the same whatever
    further arguments another version of diffusers has."""
    usual = _with_defaults({})
    return {k: v for k, v in _plain(arguments).items() if k not in usual or usual[k] != v}


def _with_defaults(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the transformer, tuples as lists."""
    known = inspect.signature(WanTransformer3DModel.__init__).parameters.values()
    return _plain({one.name: one.default for one in known if one.name != "self"} | dict(wanted))


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, list | tuple) else v for k, v in arguments.items()}
