"""Conditions are mappings of tensors with the batch in front; these are their few operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from salt_zoo.core.networks.backbone import Backbone
from salt_zoo.core.networks.network import Condition


def concatenate(first: Condition, second: Condition) -> Condition:
    """The rows of `first`, then those of `second`."""
    return {name: torch.cat([first[name], second[name]]) for name in first}


def choose(mask: Tensor, yes: Condition, no: Condition) -> Condition:
    """Row by row `yes` where `mask` `[B]` is true, else `no`."""
    return {
        name: torch.where(mask.view(-1, *[1] * (yes[name].ndim - 1)), yes[name], no[name])
        for name in yes
    }


def encode(backbone: Backbone, prompts: Sequence[str]) -> Condition:
    """The encoded prompts: those that `backbone.encodings` has, the others by the text encoder."""
    if backbone.encodings is None:
        return backbone.encode_prompts(prompts)
    rows: dict[str, Condition] = {}
    unknown = []
    for prompt in dict.fromkeys(prompts):
        row = backbone.encodings.find(prompt, backbone.device)
        if row is None:
            unknown.append(prompt)
        else:
            rows[prompt] = row
    if unknown:
        made = backbone.encode_prompts(unknown)
        for place, prompt in enumerate(unknown):
            rows[prompt] = {name: value[place] for name, value in made.items()}
    names = rows[prompts[0]]
    return {name: torch.stack([rows[prompt][name] for prompt in prompts]) for name in names}


def negative_prompt(backbone: Backbone) -> str:
    """The prompt of a backbone's unconditional branch."""
    return backbone.negative_prompt


def unconditional(backbone: Backbone, count: int) -> Condition:
    """What guidance leads away from, for `count` videos: the backbone's negative prompt."""
    return encode(backbone, [negative_prompt(backbone)] * count)


def without_prompt(backbone: Backbone, count: int) -> Condition:
    """The empty prompt for `count` videos, which share its memory."""
    one = encode(backbone, [""])
    return {name: row.expand(count, *row.shape[1:]) for name, row in one.items()}


def example(backbone: Backbone, prompts: Sequence[str] = ("",)) -> Condition:
    """The condition of some videos where only its shapes matter: first frames are black."""
    text = backbone.encode_prompts(prompts)
    if backbone.image_shape is None:
        return text
    black = torch.zeros(len(prompts), *backbone.image_shape, device=backbone.device)
    return {**text, **backbone.encode_images(black)}
