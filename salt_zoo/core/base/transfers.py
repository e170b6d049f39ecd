"""Tensors from main memory to a device, without waiting for what the device is doing."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` of the CPU on `device`.

    A copy from pageable memory waits until the GPU has done all that was asked of it before; one
    from pinned memory is asked for in its turn, so that a step's host work runs ahead.
    """
    place = torch.device(device)
    if place.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(place, non_blocking=True)
    return tensor.to(place)
