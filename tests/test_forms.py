"""Remembered forms and FLOPs of operations on the meta device are those that torch finds."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from salt_zoo.costs import forms
from salt_zoo.costs.forms import RememberedForms

A = torch.empty(4, 6, device="meta")


@pytest.fixture(autouse=True)
def known(monkeypatch):
    found = {}
    monkeypatch.setattr(forms, "_KNOWN", found)
    return found


@pytest.mark.parametrize(
    "do",
    [
        lambda a: a + 1,
        lambda a: a + 1.0,
        lambda a: a.to(torch.int64) + 1,
        lambda a: a.to(torch.int64) + 1.0,
        lambda a: a.t() * 2,  # transposed, and so is what comes of it
        lambda a: a @ a.t(),
        lambda a: a.sum(dim=1, keepdim=True),
        lambda a: a.double().mean(),
        lambda a: torch.cat([a, a.t().contiguous().view(4, 6)], dim=1),
        lambda a: torch.nn.functional.layer_norm(a, (6,)),
        lambda a: torch.ops.aten.native_layer_norm(a, (6,), None, None, 1e-5)[1],
        lambda a: torch.topk(a, 2, dim=1)[1],
        lambda a: a[:, 1:3].add_(1),  # a view, changed in place
    ],
)
def test_the_second_result_is_as_the_first(do):
    wanted = do(A.clone())
    for _ in range(2):
        with RememberedForms():
            found = do(A.clone())
        assert (found.shape, found.stride(), found.dtype) == (
            wanted.shape, wanted.stride(), wanted.dtype
        )  # fmt: skip
        assert found.is_meta


def test_what_is_remembered_is_not_computed_again(known):
    with RememberedForms():
        torch.softmax(A, dim=1)
    (key,) = known
    assert known[key] == (0, (True, [(A.shape, A.stride(), A.dtype)]))
    known[key] = 7, (True, [((2, 3), (3, 1), torch.int8)])
    with RememberedForms() as counter:
        made = torch.softmax(A, dim=1)
        other = torch.softmax(A, dim=0)
    assert counter.flops == 7
    assert made.shape == (2, 3) and made.stride() == (3, 1) and made.dtype == torch.int8
    assert other.shape == A.shape


def test_not_more_than_so_many_are_kept(known, monkeypatch):
    monkeypatch.setattr(forms, "MOST", 3)
    with RememberedForms():
        for size in range(1, 9):
            torch.softmax(A.new_empty(size, 2), dim=1)
            assert 0 < len(known) <= 3


def test_tensors_with_data_are_computed(known):
    for value in (1.0, 2.0):
        with RememberedForms():
            assert (torch.full((2,), value) * 3).tolist() == [3 * value] * 2
    assert not known


def test_gradients_and_flops_are_those_without():
    layer = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU(), torch.nn.Linear(5, 6))
    layer = layer.to("meta")
    counts = []
    for mode in (FlopCounterMode(display=False), RememberedForms(), RememberedForms()):
        layer.zero_grad()
        with mode:
            layer(A).square().mean().backward()
        counts.append(mode.flops if isinstance(mode, RememberedForms) else mode.get_total_flops())
        assert all(p.grad is not None and p.grad.shape == p.shape for p in layer.parameters())
    assert counts == [3 * 2 * 4 * 30 * 2 - 2 * 4 * 30] * 3  # no gradient for the input


@pytest.mark.parametrize(
    "do",
    [
        lambda a: torch.nn.functional.linear(a, a),
        lambda a: torch.mm(a, a.t(), out=a.new_empty(4, 4)),  # changes its argument
        lambda a: torch.einsum("ij,kj->ik", a, a),
        lambda a: torch.nn.functional.scaled_dot_product_attention(*[a.view(1, 1, 4, 6)] * 3),
    ],
)
@pytest.mark.parametrize("inference", [False, True])  # with it, torch splits no operation before
def test_flops_are_counted_each_time(do, inference):
    with torch.inference_mode(inference):
        with FlopCounterMode(display=False) as counter:
            do(A.clone())
        wanted = counter.get_total_flops()
        with RememberedForms() as remembered:
            for times in (1, 2, 3):
                do(A.clone())
                assert remembered.flops == times * wanted > 0
