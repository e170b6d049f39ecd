"""Which kernels compute attention: a choice of how a network runs, not of what it computes."""

from __future__ import annotations

from typing import Any

import torch

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.methods.meta import meta_network, on_meta
from salt_zoo.core.networks.backbone import Backbone
from salt_zoo.core.networks.network import AttentionUse, ChoosesAttention
from salt_zoo.core.networks.precision import Precision, resolve_precision

#: torch's own attention, which every network computes with until it is told otherwise.
NATIVE = "native"


def attention_use(
    precision: Precision, device: torch.device | str, *, backward: bool
) -> AttentionUse:
    """What a backend has to do where networks pass in `precision` on `device`."""
    place = torch.device(device)
    bf16 = resolve_precision(precision, place.type) == "bf16"
    return AttentionUse(place, torch.bfloat16 if bf16 else torch.float32, backward)


def choose_attention(network: Any, backend: str, where: str, use: AttentionUse | None) -> None:
    """Let a network compute its attention without a mask by `backend`.

    Args:
        where: the option that names the backend, for messages.
        use: tried first, on numbers of its device; None, for plans, checks the name alone.

    Raises:
        ZooError: there is no such backend, or it is not installed, or cannot be used so.
    """
    if not isinstance(network, ChoosesAttention):
        if backend == NATIVE:
            return
        raise ZooError(
            f"{where}: this backbone's networks have attention of one kind; write {NATIVE}"
        )
    try:
        network.choose_attention(backend, use)
    except ZooError as error:
        raise ZooError(f"{where}: {error}") from None


def check_attention(backbone: Backbone, backend: str, where: str, use: AttentionUse | None) -> None:
    """`choose_attention` for a network of the backbone that has no data: before weights are read.

    Raises:
        ZooError: as `choose_attention`.
    """
    if backend == NATIVE:
        return
    with on_meta(backbone):
        network = meta_network(backbone)
    choose_attention(network, backend, where, use)
