"""Keys and values stored in int8: how far they are off, what that costs, and what it saves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo_self_forcing.cache import CacheShape, new_cache
from salt_zoo_self_forcing.int8_cache import MOST, quantise
from tests.plugins.tiny_causal import at, network, policy, prompt, relative_error, video


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40))
def test_half_a_scale_is_the_most_that_a_number_is_off(row):
    x = torch.tensor(row)
    numbers, scale = quantise(x)
    assert numbers.dtype == torch.int8 and numbers.abs().max() <= MOST
    assert scale == x.abs().max() / MOST
    off = (numbers.double() * scale.double() - x.double()).abs().max()
    assert off <= 0.5001 * scale.double()


def test_numbers_on_the_grid_are_kept():
    x = torch.arange(-127.0, 128) * 0.25
    numbers, scale = quantise(x)
    assert torch.equal(numbers * scale, x)
    assert not quantise(torch.zeros(3))[0].any()


def committed(name: str, dtype: torch.dtype = torch.float32):
    """A memory of four frames, of which the second and third of six are gone."""
    memory = policy(name, frames=4, sink=1)
    cache = new_cache(memory, CacheShape(2, 1, 3, 64, 5, dtype, "cpu"), 9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        place = memory.place(cache, 2)
        new = torch.randn(2, 2 * 5, 3, 64, generator=generator).to(dtype)
        with torch.no_grad():
            seen, _ = cache.extended(0, new, -new, cache.rows(place.slots), place.used)
        own = cache.rows(place.slots)
        assert torch.equal(seen[:, own], new)  # exact in its own passes
        cache.commit(2)
    return cache


def test_what_is_kept_is_the_windows_but_for_rounding():
    cache = committed("window-int8")
    exact = committed("window")
    found, wanted = cache.past(0, 20), exact.past(0, 20)
    for own, its in zip(found, wanted, strict=True):
        scale = its.abs().amax(dim=-1, keepdim=True) / MOST
        assert ((own - its).abs() <= 0.5001 * scale).all() and not torch.equal(own, its)
    assert relative_error(found[0], wanted[0]) < 0.01
    assert cache.distance(exact).max() < 0.01 and not exact.distance(exact).any()


def test_a_pass_with_gradient_stores_nothing():
    cache = committed("window-int8")
    place = cache.policy.place(cache, 2)
    before = [t.clone() for t in (*cache.keys, *cache.values, cache.scales)]
    new = torch.randn(2, 10, 3, 64, requires_grad=True)
    keys, values = cache.extended(0, new, new, cache.rows(place.slots), place.used)
    (keys.sum() + values.sum()).backward()
    assert torch.equal(new.grad, torch.full_like(new, 2.0))
    after = (*cache.keys, *cache.values, cache.scales)
    assert all(map(torch.equal, before, after))


def test_bytes():
    """A byte a number, a scale of four for each token and head, and two layers to read from."""
    shape = CacheShape(1, 30, 12, 128, 1560, torch.bfloat16, "meta")  # Wan 1.3B at 480 x 832
    cache, exact = (
        new_cache(policy(name, frames=12, sink=3), shape, 21) for name in ("window-int8", "window")
    )
    tokens = 12 * 1560 * 12
    assert exact.bytes() == 2 * 30 * tokens * 128 * 2
    assert cache.bytes() == 2 * 30 * tokens * (128 + 4) + 2 * tokens * 128 * 2
    assert cache.bytes() / exact.bytes() == pytest.approx(0.549, abs=1e-3)


@torch.no_grad()
def test_videos_are_those_of_the_window_but_for_rounding():
    def made(name: str) -> torch.Tensor:
        net = network(policy(name, frames=6, sink=2))
        memory, blocks = net.new_memory(video(2)), []
        for seed in range(8):
            x = net(video(2, seed), at(0.7), prompt(), memory)
            blocks.append(x)
            net.update_cache(x, at(0.0), prompt(), memory)
        return torch.cat(blocks, dim=2)

    found, wanted = made("window-int8"), made("window")
    assert torch.equal(found[:, :, :2], wanted[:, :, :2])  # nothing is remembered yet
    assert 0 < relative_error(found, wanted) < 0.01
