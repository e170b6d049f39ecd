"""What a deep network costs, from a few of its blocks: a plan need not walk through forty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from salt_zoo.core.networks.copies import copied

#: Numbers of blocks that are measured; the second and the third must add the same.
DEPTHS = (1, 2, 3)


def over_depth(
    network: nn.Module, measure: Callable[[Any], tuple[float, ...]]
) -> tuple[float, ...]:
    """`measure(network)`, where every block adds the same: measured with few of them, drawn on.

    If the numbers do not grow evenly, or there are no blocks that are all alike, the whole network
    is measured.

    Args:
        network: on the meta device.
        measure: numbers of a network; it is given a copy, which it may spoil.
    """
    places = alike(network)
    count = len(places[0][2]) if places else 0
    if count <= sum(DEPTHS):
        return measure(copied(network))
    values = []
    try:
        for depth in DEPTHS:
            for owner, name, blocks in places:
                setattr(owner, name, blocks[:depth])
            values.append(np.array(measure(copied(network))))
    finally:
        for owner, name, blocks in places:
            setattr(owner, name, blocks)
    steps = np.diff(values, axis=0)
    if not np.allclose(steps[0], steps[1], rtol=1e-6, atol=0):
        return measure(copied(network))
    total = values[-1] + (count - DEPTHS[-1]) * steps[-1]
    return tuple(float(value) for value in total)


def alike(network: nn.Module) -> list[tuple[nn.Module, str, nn.ModuleList]]:
    """The blocks with most weights that are all alike: their owner, its attribute, and they; and
    others of that form and number, as the second of two networks in one has them."""
    lists = [
        (owner, name, child)
        for owner in network.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList) and len({_form(block) for block in child}) == 1
    ]
    if not lists:
        return []
    heaviest = max(lists, key=lambda found: _weights(found[2]))[2]
    like = len(heaviest), _form(heaviest[0])
    return [found for found in lists if (len(found[2]), _form(found[2][0])) == like]


def _form(block: nn.Module) -> tuple[Any, ...]:
    return type(block), tuple((n, p.shape, p.dtype) for n, p in block.named_parameters())


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
