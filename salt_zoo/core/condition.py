"""Conditions are mappings of tensors with the batch in front; these are their few operations."""

from __future__ import annotations

import torch
from torch import Tensor

from salt_zoo.core.protocols import Backbone, Condition


def concatenate(first: Condition, second: Condition) -> Condition:
    """The rows of `first`, then those of `second`."""
    return {name: torch.cat([first[name], second[name]]) for name in first}


def choose(mask: Tensor, yes: Condition, no: Condition) -> Condition:
    """Row by row `yes` where `mask` `[B]` is true, else `no`."""
    return {
        name: torch.where(mask.view(-1, *[1] * (yes[name].ndim - 1)), yes[name], no[name])
        for name in yes
    }


def negative_prompt(backbone: Backbone) -> str:
    """The prompt of a backbone's unconditional branch."""
    return backbone.negative_prompt


def unconditional(backbone: Backbone, count: int) -> Condition:
    """What guidance leads away from, for `count` videos: the backbone's negative prompt."""
    return backbone.encode_prompts([negative_prompt(backbone)] * count)


def without_prompt(backbone: Backbone, count: int) -> Condition:
    """The empty prompt for `count` videos, which share its memory."""
    one = backbone.encode_prompts([""])
    return {name: row.expand(count, *row.shape[1:]) for name, row in one.items()}
