"""Loading a Wan transformer from a checkpoint in Wan's own names or in diffusers'."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.core.base.finite import count_not_finite, weights_not_finite
from salt_zoo.core.protocols import StoredWeights
from salt_zoo_wan.checkpoint.check import check_state_dict, parameter_shapes
from salt_zoo_wan.checkpoint.config_json import check_config
from salt_zoo_wan.checkpoint.files import CheckpointFiles, find_checkpoint
from salt_zoo_wan.checkpoint.formats import original_name
from salt_zoo_wan.checkpoint.read import is_mapped
from salt_zoo_wan.checkpoint.select import Entry, select_transformer


def load_transformer(
    source: Path | str | Mapping[str, Any],
    transformer_config: Mapping[str, Any],
    entry: Entry | None = None,
) -> WanTransformer3DModel:
    """A diffusers transformer from weights in Wan's original names, or in diffusers' own.

    In float32, whatever the file's precision (halves keep their values). Agrees with the original
    implementation to a relative error of about 2e-6.

    Args:
        source: a file, a folder or an index of shards, as `files.find_checkpoint` takes them,
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
        state = select_transformer(source, named, entry)
        check_state_dict(state, transformer_config, named)
    else:
        state = _checked(find_checkpoint(Path(source)), transformer_config, named, entry)
    _check_finite(state, named)
    with tempfile.TemporaryDirectory() as folder:  # without a local config diffusers asks the hub
        config = {"_class_name": "WanTransformer3DModel", **transformer_config}
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            return WanTransformer3DModel.from_single_file(state, config=folder)
        except Exception as error:  # diffusers raises many kinds
            raise ZooError(f"{named}: cannot be loaded ({reason(error)})") from None


def stored_transformer(
    source: Path, transformer_config: Mapping[str, Any], prefix: str = ""
) -> StoredWeights | str:
    """The tensors of `load_transformer(source, transformer_config)` under diffusers' names, not yet
    read; or why they cannot be read in parts.

    Args:
        prefix: what the names of the network's parameters begin with.

    Raises:
        ZooError: as `load_transformer`, but for numbers that are not finite.
    """
    place = find_checkpoint(source)
    for file in place.files:
        if not is_mapped(file):
            return f"{file} is a pickle that cannot be mapped (convert it to .safetensors)"
    state = _checked(place, transformer_config, str(source), None)
    names = {original_name(name) or name: name for name in parameter_shapes(transformer_config)}
    tensors = {f"{prefix}{names.get(key, key)}": value for key, value in state.items()}
    return StoredWeights(tensors, str(source))


def _checked(
    place: CheckpointFiles, config: Mapping[str, Any], named: str, entry: Entry | None
) -> dict[str, Tensor]:
    """The tensors of a transformer in their file's names, checked but for their numbers."""
    state = select_transformer(place.read(), named, entry)
    check_state_dict(state, config, named)
    check_config(place, config)
    return state


def read_state_dict(source: Path) -> dict[str, Tensor]:
    """A transformer's tensors by their bare names, not yet read where the file can be mapped.

    Raises:
        ZooError: nothing is there, or it is damaged, or holds no tensors, or several transformers.
    """
    return select_transformer(find_checkpoint(source).read(), str(source))


def _check_finite(state: Mapping[str, Tensor], named: str) -> None:
    """Reject NaN and infinite weights."""
    for key, value in state.items():
        if bad := count_not_finite(value):
            raise weights_not_finite(named, key, bad, value.numel())
