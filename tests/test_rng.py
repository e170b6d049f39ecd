"""Random streams: keyed by what they are for, row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo.core.base.rng import KeyedRNG, seed_torch

scopes = st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=3).map(tuple)


@given(seed=st.integers(0, 2**40), count=st.integers(1, 6), cut=st.integers(0, 6), scope=scopes)
def test_rows_do_not_depend_on_how_the_batch_is_split(seed, count, cut, scope):
    whole = KeyedRNG(seed, scope, range(count))
    parts = [whole.for_rows(range(min(cut, count))), whole.for_rows(range(min(cut, count), count))]
    parts = [part for part in parts if len(part.rows)]
    assert torch.equal(
        whole.randn((2, 3), "noise", 1),
        torch.cat([part.randn((2, 3), "noise", 1) for part in parts]),
    )
    assert torch.equal(whole.rand("t"), torch.cat([part.rand("t") for part in parts]))
    assert whole.randint(1000, "k") == [k for part in parts for k in part.randint(1000, "k")]
    for part in parts:  # what all rows and processes share
        assert part.shared_randint(1000, "exit") == whole.shared_randint(1000, "exit")
        assert part.shared_rand("u") == whole.shared_rand("u")


@given(
    one=st.builds(KeyedRNG, st.integers(0, 99), scopes),
    other=st.builds(KeyedRNG, st.integers(0, 99), scopes),
)
def test_other_keys_are_other_streams(one, other):
    first, second = (rng.for_rows([0]).randn((8,), "noise") for rng in (one, other))
    assert torch.equal(first, second) == (one == other)


def test_every_part_of_the_key_counts():
    rng = KeyedRNG(0, ("train",), range(2))
    found = [
        rng.randn((8,), "noise"),
        rng.randn((8,), "other"),
        rng.randn((8,), "noise", 0),
        rng.randn((8,), "noise", "0"),
        rng.at("noise").randn((8,)),
        rng.at(1).randn((8,), "noise"),
        rng.for_rows([2, 3]).randn((8,), "noise"),
        KeyedRNG(1, ("train",), range(2)).randn((8,), "noise"),
    ]
    rows = torch.cat(found)
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_draws_do_not_depend_on_their_order_nor_on_torchs_state():
    rng = KeyedRNG(0, (), range(2))
    first = rng.randn((4,), "a")
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    rng.randn((4,), "b")
    assert torch.equal(rng.randn((4,), "a"), first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_torchs_own_generator_is_seeded_as_by_torch():
    with torch.random.fork_rng(devices=[]):
        seed_torch(2**60 + 1)
        found = torch.rand(3), torch.random.initial_seed()
        torch.manual_seed(2**60 + 1)
        assert torch.equal(found[0], torch.rand(3)) and found[1] == torch.random.initial_seed()


def test_the_streams_are_the_same_for_ever():
    """Results on disk are compared with new ones: these numbers must not change."""
    rng = KeyedRNG(3, ("evaluation", "test"), range(2))
    assert rng.randint(10**6, "frozen") == [876006, 174248]
    expected = torch.tensor([[0.084481, 0.386814], [0.302704, -1.607603]])
    torch.testing.assert_close(rng.randn((2,), "frozen"), expected, rtol=0, atol=1e-5)


def test_the_distributions():
    rng = KeyedRNG(0, (), range(4000))
    normal, uniform = rng.randn((4,), "n"), rng.rand("u")
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.03
    counts = torch.bincount(torch.tensor(rng.randint(4, "i")), minlength=4)
    assert counts.min() > 900 and counts.sum() == 4000
    assert rng.randn((3, 2), "n", dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("shape", [(1,), (7,), (16,), (17,), (3, 5), (1, 3, 16, 16), (2, 3, 7)])
def test_a_row_is_what_its_own_generator_draws(shape):
    rng = KeyedRNG(3, ("x",), [0, 5])
    rows = [torch.randn(shape, generator=rng.generator("noise", 1, row)) for row in (0, 5)]
    assert torch.equal(rng.randn(shape, "noise", 1), torch.stack(rows))
