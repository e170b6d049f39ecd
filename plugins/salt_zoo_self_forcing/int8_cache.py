"""A KV cache whose keys and values are stored in int8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo_self_forcing.cache import CacheShape, KVCache, Policy

#: The largest stored number; -128 is left out, so that the grid is symmetric.
MOST = 127


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` `[..., width]` as int8 `[..., width]` and a scale in float32 `[..., 1]`, the largest
    magnitude of the last axis divided by 127: `numbers * scale` is off by half a scale at most."""
    x = x.float()
    scale = x.abs().amax(dim=-1, keepdim=True) / MOST
    numbers = (x / torch.where(scale > 0, scale, 1)).round()
    return numbers.to(torch.int8), scale


class Int8KVCache(KVCache):
    """As `KVCache`, with one scale for each token, head and layer, of keys and of values.

    A block's own keys and values are exact in its own passes and are rounded for those that come
    after it. A layer's past is restored into two buffers that all layers share, so what `past`
    returns lasts until it is called again.
    """

    def __init__(
        self, policy: Policy, shape: CacheShape, frames: int, group: SequenceGroup | None = None
    ) -> None:
        super().__init__(policy, shape, frames, group)
        rows, device = self.slots * shape.tokens, shape.device
        size = (2, shape.layers, shape.rows, rows, shape.heads, 1)
        #: Of keys, then of values, by layer.
        self.scales = torch.zeros(size, dtype=torch.float32, device=device)
        restored = (2, shape.rows, rows, shape.heads, shape.width)
        self.restored = torch.zeros(restored, dtype=shape.dtype, device=device)
        self.beside += [self.scales, self.restored]

    def _empty(self, size: Sequence[int]) -> Tensor:
        return torch.zeros(size, dtype=torch.int8, device=self.shape.device)

    def extended(
        self, layer: int, keys: Tensor, values: Tensor, own: slice | Tensor, used: int
    ) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            stored = (self.keys, self.values)
            for buffers, scales, new in zip(stored, self.scales, (keys, values), strict=True):
                buffers[layer][:, own], scales[layer][:, own] = quantise(new)
        return super().extended(layer, keys, values, own, used)

    def past(self, layer: int, rows: int) -> tuple[Tensor, Tensor]:
        found = self.restored[:, :, :rows]
        with torch.no_grad():
            stored = (self.keys, self.values)
            for out, buffers, scales in zip(found, stored, self.scales, strict=True):
                out.copy_(buffers[layer][:, :rows]).mul_(scales[layer][:, :rows])
        return found[0], found[1]
