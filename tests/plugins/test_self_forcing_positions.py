"""Rotary tables against the angles themselves, and what is kept of them between passes."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from salt_zoo_self_forcing.transformer import positions
from salt_zoo_self_forcing.transformer.positions import rotary_table


def angles(frames, rows, columns, width):
    """Every angle by its definition: `[frames * rows * columns, width / 2]`, float64."""
    side = 2 * (width // 6)
    speeds = [
        10000.0 ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
        for size in (width - 2 * side, side, side)
    ]
    found = [
        torch.cat([place * speed for place, speed in zip((f, r, c), speeds, strict=True)])
        for f in frames
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(found)


@pytest.mark.parametrize("frames", [range(3), range(40, 43), [0, 1, 7, 8, 5]])
@pytest.mark.parametrize("grid", [(3, 5, 24), (4, 4, 16), (2, 3, 128)])
def test_table_is_that_of_the_angles(frames, grid):
    cosine, sine = rotary_table([*frames], *grid, "cpu")
    wanted = angles(frames, *grid)[:, None]
    assert cosine.dtype == torch.float32
    torch.testing.assert_close(cosine, wanted.cos().float(), rtol=0, atol=1e-7)
    torch.testing.assert_close(sine, wanted.sin().float(), rtol=0, atol=1e-7)


def test_what_is_kept_is_real_and_can_be_trained_with():
    for made in (positions._of_frames, positions._of_tokens):
        made.cache_clear()
    with torch.inference_mode():
        rotary_table([0, 1], 2, 2, 16, "cpu")
    with FakeTensorMode(allow_non_fake_inputs=True):
        rotary_table([5, 6], 2, 3, 16, "cpu")
    for frames, grid in (([0, 1], (2, 2)), ([5, 6], (2, 3))):
        for table in rotary_table(frames, *grid, 16, "cpu"):
            assert not isinstance(table, FakeTensor) and not table.is_inference()
            (table * torch.ones((), requires_grad=True)).sum().backward()
