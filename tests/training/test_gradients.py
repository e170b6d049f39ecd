"""Gradients of several processes, averaged in buckets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo.training.gradients import buckets
from tests.two_processes import PAIR


@given(sizes=st.lists(st.integers(0, 9)), limit=st.integers(1, 20))
def test_buckets_hold_neighbours_up_to_their_size(sizes, limit):
    parameters = [torch.empty(size, device="meta") for size in sizes]
    found = list(buckets(parameters, limit))
    assert [id(p) for bucket in found for p in bucket] == [id(p) for p in parameters]
    for bucket in found:
        assert len(bucket) == 1 or sum(p.numel() for p in bucket) <= limit


def test_a_bucket_has_one_type():
    parameters = [torch.empty(1, dtype=t) for t in (torch.float32, torch.bfloat16, torch.bfloat16)]
    assert [len(bucket) for bucket in buckets(parameters, 100)] == [1, 2]


@pytest.mark.slow
def test_two_processes():
    done = PAIR.run(["-m", "tests.training.gradient_means"])
    assert done.code == 0, done.err
    third = [[1.5 * n for n in range(4)], [1.5 * n for n in range(4, 8)]]
    means = [[0.5, 0.5], [[2.0, 2.0, 2.0]], third, None]
    # numbers of each transfer: those of its weights, and one a weight that says who has it
    wanted = [f"{rank}: {means} [7, 9, 2]" for rank in (0, 1)]
    assert sorted(done.out.splitlines()) == wanted
