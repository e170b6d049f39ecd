"""Which frame sees which in a pass over a whole video: the masks of block-causal training.

The same rules as the memories': every block sees itself and the blocks before it, or the first
`sink` frames and the last `local - sink` before its own end. The former, with blocks of k frames,
is eq. 5 of CausVid (arXiv 2412.07772): frame i sees frame j where `floor(j / k) <= floor(i / k)`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from salt_zoo_wan.transformer.attention_backends import (
    NATIVE,
    AttentionBackendName,
    dispatch_attention,
)

#: Tokens of a side of flex_attention's tiles.
TILE = 128


@dataclass(frozen=True)
class Span:
    """What of the past is seen.

    Attributes:
        local: frames in all, the sink and the block itself included; None is all of the past.
        sink: first frames that are always seen.
    """

    local: int | None = None
    sink: int = 0


def frame_mask(blocks: Sequence[slice], span: Span, clean_copy: bool) -> Tensor:
    """Who sees whom: bool `[Q, K]` over frames.

    Without `clean_copy` Q = K = F, block-causal. With it the sequence is the clean video, then the
    noisy one (teacher forcing): clean blocks see clean blocks up to their own, noisy blocks see
    the clean blocks before them and themselves.
    """
    count = blocks[-1].stop
    past = torch.zeros(count, count, dtype=torch.bool)
    own = torch.zeros(count, count, dtype=torch.bool)
    for block in blocks:
        own[block, block] = True
        past[block, : block.start] = True
        if span.local is not None:
            first = block.stop - (span.local - span.sink)
            past[block, min(span.sink, block.start) : max(span.sink, first)] = False
            past[block, block.start :] = False
    causal = past | own
    if not clean_copy:
        return causal
    nothing = torch.zeros_like(own)
    return torch.cat([torch.cat([causal, nothing], dim=1), torch.cat([past, own], dim=1)])


class TokenMask:
    """A mask over frames, as attention needs it: over tokens, `tokens` a frame."""

    def __init__(self, frames: Tensor, tokens: int) -> None:
        self.frames, self.tokens = frames, tokens

    @functools.cached_property
    def dense(self) -> Tensor:
        """Bool `[Q * tokens, K * tokens]`, for SDPA."""
        with torch.inference_mode(False):  # training may follow
            return repeat(self.frames, "q k -> (q s) (k t)", s=self.tokens, t=self.tokens)

    @functools.cached_property
    def blocks(self) -> Any:
        """The block mask of flex_attention, worked out from the frames.

        `create_block_mask` would ask for every pair of tokens: 10 bytes a pair, 40 GiB for teacher
        forcing at 480x832.
        """
        from torch.nn.attention.flex_attention import BlockMask

        frames, tokens = self.frames, self.tokens

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return frames[query // tokens, key // tokens]

        queries, keys = (tokens * n for n in frames.shape)
        with torch.inference_mode(False):
            some, every = tiles(frames.cpu(), tokens, TILE)
            count, place = (part.to(frames.device) for part in _listed(some & ~every))
            full_count, full_place = (part.to(frames.device) for part in _listed(every))
            return BlockMask.from_kv_blocks(
                count,
                place,
                full_count,
                full_place,
                BLOCK_SIZE=TILE,
                mask_mod=sees,
                seq_lengths=(queries, keys),
            )


def tiles(frames: Tensor, tokens: int, size: int) -> tuple[Tensor, Tensor]:
    """Of a mask over frames `[Q, K]`, which tiles of `size` x `size` tokens hold some pair that is
    seen, and which hold nothing else: bool `[ceil(Q tokens / size), ceil(K tokens / size)]`.

    A tile that reaches past the end of the tokens is never one of the latter.
    """
    rows, columns = (_touched(count, tokens, size) for count in frames.shape)
    some = rows @ frames.float() @ columns.T > 0
    hidden = rows @ (~frames).float() @ columns.T > 0
    whole = [
        torch.arange(1, len(part) + 1) * size <= part.shape[1] * tokens for part in (rows, columns)
    ]
    return some, some & ~hidden & whole[0][:, None] & whole[1]


def _touched(frames: int, tokens: int, size: int) -> Tensor:
    """Which frames each run of `size` tokens touches: `[runs, frames]`, 1 or 0."""
    first = torch.arange(-(-frames * tokens // size))[:, None] * size
    begin = torch.arange(frames) * tokens
    return ((begin < first + size) & (begin + tokens > first)).float()


def _listed(which: Tensor) -> tuple[Tensor, Tensor]:
    """How many tiles of a row are set `[1, 1, Q]`, and their columns first `[1, 1, Q, K]`."""
    order = which.int().argsort(dim=1, descending=True, stable=True)
    return which.sum(dim=1)[None, None].int(), order[None, None].int().contiguous()


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: TokenMask | None,
    backend: AttentionBackendName = NATIVE,
) -> Tensor:
    """Attention of `[B, N, heads, width]` tensors: without a mask by `backend`; masked by
    flex_attention on CUDA, by SDPA with a dense mask elsewhere (flex_attention has no backward
    there)."""
    if mask is None:
        return dispatch_attention(query, key, value, backend)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if query.is_cuda:
        out = _flex()(q, k, v, block_mask=mask.blocks)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.dense)
    return out.transpose(1, 2)


@functools.cache
def _flex() -> Any:
    """Compiled: uncompiled, flex_attention makes the whole matrix."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)
