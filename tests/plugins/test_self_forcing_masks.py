"""flex_attention's block masks, worked out from frames, against torch's own from all pairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from salt_zoo_self_forcing.masks import TILE, Span, TokenMask, attend, frame_mask


def blocks_of(sizes: list[int]) -> list[slice]:
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def by_pairs(mask: TokenMask):
    frames, tokens = mask.frames, mask.tokens
    queries, keys = (tokens * n for n in frames.shape)

    def sees(batch, head, query, key):
        return frames[query // tokens, key // tokens]

    return create_block_mask(sees, None, None, queries, keys, device="cpu")


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    tokens=st.integers(1, 150),
    local=st.none() | st.integers(4, 9),
    sink=st.integers(0, 3),
    clean_copy=st.booleans(),
)
def test_tiles_are_those_of_all_pairs(sizes, tokens, local, sink, clean_copy):
    mask = TokenMask(frame_mask(blocks_of(sizes), Span(local, sink), clean_copy), tokens)
    ours, torchs = mask.blocks, by_pairs(mask)
    assert ours.shape == torchs.shape and ours.BLOCK_SIZE == torchs.BLOCK_SIZE
    for name in ("kv", "full_kv", "q", "full_q"):
        counts = [getattr(m, f"{name}_num_blocks") for m in (ours, torchs)]
        assert torch.equal(*counts)
        listed = [getattr(m, f"{name}_indices") for m in (ours, torchs)]
        for row, count in enumerate(counts[0][0, 0]):
            assert torch.equal(*(indices[0, 0, row, :count] for indices in listed))


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_attention_is_that_of_the_dense_mask():
    frames = frame_mask(blocks_of([2, 3, 3]), Span(5, 1), True)
    mask = TokenMask(frames, 30)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 480, 2, 16, generator=generator) for _ in range(3))
    flex = flex_attention(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask.blocks)
    torch.testing.assert_close(flex.transpose(1, 2), attend(q, k, v, mask))


def test_memory_grows_with_tiles_not_with_pairs():
    """Teacher forcing of 21 frames at 480x832: 4.3e9 pairs."""
    blocks = blocks_of([3] * 7)
    mask = TokenMask(frame_mask(blocks, Span(), True), 1560).blocks
    held = [mask.kv_indices, mask.full_kv_indices, mask.q_indices, mask.full_q_indices]
    assert sum(part.numel() for part in held) == 4 * (2 * 21 * 1560 / TILE + 0.125) ** 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_tile_past_the_end_is_not_whole(count):
    whole = torch.ones(1, count, dtype=torch.bool)
    mask = TokenMask(whole, TILE - 1).blocks
    assert mask.full_kv_num_blocks.sum() == 0 and mask.kv_num_blocks.sum() == count
