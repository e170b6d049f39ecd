"""Conditions are mappings of tensors with the batch in front; these are their few operations."""

from __future__ import annotations

import torch
from torch import Tensor

from salt_zoo.protocols import Condition


def concatenate(first: Condition, second: Condition) -> Condition:
    """The rows of `first`, then those of `second`."""
    return {name: torch.cat([first[name], second[name]]) for name in first}


def choose(mask: Tensor, yes: Condition, no: Condition) -> Condition:
    """Row by row `yes` where `mask` `[B]` is true, else `no`."""
    return {
        name: torch.where(mask.view(-1, *[1] * (yes[name].ndim - 1)), yes[name], no[name])
        for name in yes
    }
