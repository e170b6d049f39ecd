"""Saved networks of a size: one, two that share the times of one flow, or one of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo_wan.checkpoint.export import save_transformer
from salt_zoo_wan.checkpoint.files import EXPERTS, find_checkpoint, find_experts
from salt_zoo_wan.checkpoint.load import load_transformer
from salt_zoo_wan.checkpoint.lora_files import LORA_FILES
from salt_zoo_wan.experts.experts import WanExperts, networks_of
from salt_zoo_wan.experts.records import check_expert, expert_record, read_boundary
from salt_zoo_wan.sizes import WanSize, transformer_config
from salt_zoo_wan.transformer.network import WanNetwork


def save_transformers(network: Any, folder: Path, size: WanSize) -> None:
    """Write the transformers of a network as the parts of a diffusers pipeline."""
    boundary = network.boundary if isinstance(network, WanExperts) else None
    for part, one in networks_of(network).items():
        whose = size.expert_part if boundary is None else part
        save_transformer(one.transformer, folder / part, expert_record(whose, boundary))


def load_network(size: WanSize, place: Path, name: str) -> WanNetwork | WanExperts:
    """The network of a size, in float32, from what `load_transformer` takes; two from a folder of
    two.

    Args:
        name: of the size, for messages.

    Raises:
        ZooError: as `load_transformer`, or it is one network where the size has two, or the other
            expert.
    """
    if size.experts is None:
        return _load(size, place_of_own(size, place))
    folders = find_experts(place)
    if not folders:
        raise ZooError(
            f"{place}: holds one network, and {name!r} has two; say which one it is: --set "
            "backbone.options.expert=high or low"
        )
    two, boundary = size.experts, read_boundary(folders[EXPERTS[0]])
    high, low = (
        _load(one, folders[part]) for one, part in zip((two.high, two.low), EXPERTS, strict=True)
    )
    return WanExperts(high, low, boundary or two.boundary)


def _load(size: WanSize, place: Path) -> WanNetwork:
    check_expert(find_checkpoint(place).config, size.expert_part)
    transformer = load_transformer(place, transformer_config(size)).float()
    return WanNetwork(transformer, size.coordinates)


def place_of_own(size: WanSize, place: Path) -> Path:
    """Where at `place` the one network of a size lies: of one of two in a folder of both its part,
    else the place itself."""
    return place if size.expert_part is None else find_experts(place).get(size.expert_part, place)


def lora_of_own(size: WanSize, folder: Path) -> Path:
    """The LoRA of the one network of a size in a saved student's folder."""
    part = size.expert_part if find_experts(folder) else None
    return folder / LORA_FILES[part or EXPERTS[0]]


def refuse_two(size: WanSize, format: str, others: str = "") -> None:
    """
    Raises:
        ZooError: the size has two networks, and a file of this format holds one.
    """
    if size.experts is not None:
        raise ZooError(
            f"format {format!r}: is a file of one network, and the student has two; write one "
            f"after the other: --set backbone.options.expert=high, then low{others}"
        )
