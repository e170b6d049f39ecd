"""Attention processors that add a memory, masks and rotary offsets to diffusers' Wan.

diffusers hands what `transformer.rope` returns to every self-attention unopened. Here it is a
`Pass`: it travels with the arguments, so that gradient checkpointing recomputes with the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.core.protocols import Condition
from salt_zoo_self_forcing.cache import KVCache
from salt_zoo_self_forcing.masks import TokenMask, attend
from salt_zoo_self_forcing.transformer.positions import rotate
from salt_zoo_wan.transformer.attention_backends import NATIVE

Table = tuple[Tensor, Tensor]
KeysAndValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Pass:
    """What the attention of one pass needs beside its tokens.

    Attributes:
        queries: rotary table of the pass's own tokens.
        mask: who sees whom in a pass over several blocks; None where all see all.
        memory: the past; the rest is about it.
        own, used: the rows of the buffers that are the block's, and how many slots it sees.
        keys: rotary table of all slots where keys are kept unrotated.
        version: of the memory when the pass began.
        prompt: the condition that the pass was given, by which cached keys of it are known again.
        images: how many tokens of the condition are an image's; they come first.
    """

    queries: Table
    mask: TokenMask | None = None
    memory: KVCache | None = None
    own: slice | Tensor | None = None
    used: int = 0
    keys: Table | None = None
    version: int = 0
    prompt: Condition | None = None
    images: int = 0


class Rope(nn.Module):
    """In the place of diffusers' rotary embedding: hands out the `Pass` that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.run: Pass | None = None

    def forward(self, hidden_states: Tensor) -> Pass | None:
        return self.run


class SelfAttention:
    """Self-attention of one layer over the memory and its own block, or under a mask."""

    #: The name is diffusers', whose `set_attention_backend` sets it.
    _attention_backend = NATIVE

    def __init__(self, layer: int) -> None:
        self.layer = layer
        #: The pass that this layer is in; its cross-attention runs right after.
        self.run: Pass | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Pass | None = None,
    ) -> Tensor:
        run = self.run = rotary_emb
        assert run is not None
        # `[B, N, heads, width]`; einops would cost a small network's pass measurable time here, in
        # `attend` and in `rotate`
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        query = rotate(query, run.queries)
        if run.keys is None:
            key = rotate(key, run.queries)
        if run.memory is not None and run.own is not None:
            if run.version != run.memory.version:
                raise RuntimeError(
                    "the memory changed between a pass and its recomputation by gradient "
                    "checkpointing: call backward before the next block is written to the memory"
                )
            key, value = run.memory.extended(self.layer, key, value, run.own, run.used)
            if run.keys is not None:
                key = rotate(key, run.keys)
        out = attend(query, key, value.type_as(query), run.mask, self._attention_backend)
        out = out.flatten(2, 3)
        return attn.to_out[1](attn.to_out[0](out.type_as(hidden_states)))


class CrossAttention:
    """Cross-attention to the prompt and, where there is one, to the image, as diffusers' own; its
    keys and values are computed once for each condition of a memory."""

    _attention_backend = NATIVE  # as that of `SelfAttention`

    def __init__(self, beside: SelfAttention) -> None:
        self.beside = beside

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        parts = [
            attend(
                query, key.type_as(query), value.type_as(query), None, self._attention_backend
            ).flatten(2, 3)
            for key, value in self._prompt(attn, encoder_hidden_states)
        ]
        out = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return attn.to_out[1](attn.to_out[0](out.type_as(hidden_states)))

    def _prompt(self, attn: Any, tokens: Tensor) -> Sequence[KeysAndValues]:
        run, layer = self.beside.run, self.beside.layer
        assert run is not None
        self.beside.run = None  # a memory must not live on because a layer has seen it
        if run.memory is None or torch.is_grad_enabled():  # then they are part of the graph
            return _keys_and_values(attn, tokens, run.images)
        if run.memory.prompt is not run.prompt:
            run.memory.prompt = run.prompt
            run.memory.cross.clear()
        if layer not in run.memory.cross:
            run.memory.cross[layer] = _keys_and_values(attn, tokens, run.images)
        return run.memory.cross[layer]


def _keys_and_values(attn: Any, tokens: Tensor, images: int) -> Sequence[KeysAndValues]:
    """Of the prompt's tokens and, by projections of their own, of the image's before them."""
    text = tokens[:, images:] if images else tokens
    key = attn.norm_k(attn.to_k(text)).unflatten(2, (attn.heads, -1))
    found = [(key, attn.to_v(text).unflatten(2, (attn.heads, -1)))]
    if images:
        image = tokens[:, :images]
        key = attn.norm_added_k(attn.add_k_proj(image)).unflatten(2, (attn.heads, -1))
        found.append((key, attn.add_v_proj(image).unflatten(2, (attn.heads, -1))))
    return found
