"""Means over processes, of gradients and of statistics: a few large transfers, not one a weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

_BatchNorm = nn.modules.batchnorm._BatchNorm

#: Numbers of one transfer, 100 MB in float32.
BUCKET = 25_000_000


def average_gradients(parameters: Sequence[Any], accelerator: Accelerator) -> None:
    """Replace the gradient of every parameter by its mean over all processes.

    One after all backward passes of a update, so that a method may call backward as often as it
    wants; DDP expects exactly one. A parameter without a gradient in some processes counts as 0
    there; one without in all of them stays without, as in a single process.
    """
    if accelerator.num_processes == 1:
        return
    for bucket in buckets(parameters, BUCKET):
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        has = torch.tensor([p.grad is not None for p in bucket], dtype=parts[0].dtype)
        flat = torch.cat([part.flatten() for part in parts] + [has.to(parts[0].device)])
        mean: Tensor = accelerator.reduce(flat, reduction="mean")
        *means, had = mean.split([part.numel() for part in parts] + [len(bucket)])
        # read only where it decides something: reading waits for the device
        anywhere = [] if all(p.grad is not None for p in bucket) else had.tolist()
        for place, (parameter, value) in enumerate(zip(bucket, means, strict=True)):
            if parameter.grad is not None:
                parameter.grad.copy_(value.view_as(parameter))
            elif anywhere[place]:
                parameter.grad = value.view_as(parameter).clone()


@torch.no_grad()
def average_buffers(network: nn.Module, accelerator: Accelerator) -> None:
    """Replace floating-point buffers that a pass in training may change by their mean over all
    processes: those of batch norms, whose statistics are of a process's own rows."""
    if accelerator.num_processes == 1:
        return
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for buffer in (buffer for norm in norms for buffer in norm.buffers()):
        if buffer.is_floating_point():
            buffer.copy_(accelerator.reduce(buffer.clone(), reduction="mean"))


def buckets(parameters: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Neighbours of one type and device, of at most `size` numbers together (or one alone)."""
    bucket: list[Any] = []
    numbers = 0
    for parameter in parameters:
        fits = not bucket or (
            numbers + parameter.numel() <= size
            and (parameter.dtype, parameter.device) == (bucket[0].dtype, bucket[0].device)
        )
        if not fits:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(parameter)
        numbers += parameter.numel()
    if bucket:
        yield bucket
