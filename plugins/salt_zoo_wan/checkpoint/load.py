"""Loading a Wan transformer from a checkpoint in Wan's own names or in diffusers'."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from salt_zoo.core.errors import ZooError, reason
from salt_zoo_wan.checkpoint.check import check_state_dict
from salt_zoo_wan.checkpoint.config_json import check_config
from salt_zoo_wan.checkpoint.files import find_checkpoint
from salt_zoo_wan.checkpoint.select import Entry, select_transformer

#: Dtypes that `torch.aminmax` supports.
_ORDERED = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


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
        place = find_checkpoint(Path(source))
        state = select_transformer(place.read(), named, entry)
        check_state_dict(state, transformer_config, named)
        check_config(place, transformer_config)
    _check_finite(state, named)
    with tempfile.TemporaryDirectory() as folder:  # without a local config diffusers asks the hub
        config = {"_class_name": "WanTransformer3DModel", **transformer_config}
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            return WanTransformer3DModel.from_single_file(state, config=folder)
        except Exception as error:  # diffusers raises many kinds
            raise ZooError(f"{named}: cannot be loaded ({reason(error)})") from None


def read_state_dict(source: Path) -> dict[str, Tensor]:
    """A transformer's tensors by their bare names, not yet read where the file can be mapped.

    Raises:
        ZooError: nothing is there, or it is damaged, or holds no tensors, or several transformers.
    """
    return select_transformer(find_checkpoint(source).read(), str(source))


def _check_finite(state: Mapping[str, Tensor], named: str) -> None:
    """Reject NaN and infinite weights."""
    for key, value in state.items():
        ends = value if value.dtype in _ORDERED else value.float()
        if value.numel() and not all(end.isfinite() for end in torch.aminmax(ends)):
            bad = int((~value.float().isfinite()).sum())
            raise ZooError(
                f"{named}: {key!r} has {bad} of {value.numel()} numbers that are not finite (NaN "
                "or infinite), so every video would be black; the training went wrong before they "
                "were saved, or the conversion overflowed: give an earlier checkpoint"
            )
