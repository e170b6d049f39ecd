"""Remembered results on fake tensors are those that torch finds, and so are the bytes they take."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from salt_zoo.costs import activations, fakes
from salt_zoo.costs.activations import peak_activation_bytes
from salt_zoo.costs.fakes import RememberedFakes


@pytest.fixture(autouse=True)
def known(monkeypatch):
    found = {}
    monkeypatch.setattr(fakes, "_KNOWN", found)
    return found


def seen(tensor):
    """All that a fake tensor shows."""
    assert isinstance(tensor, FakeTensor)
    storage = tensor.untyped_storage().nbytes()
    return (
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.storage_offset(),
        tensor.device,
        storage,
    )


OPERATIONS = [
    lambda a: a + 1,
    lambda a: a + 1.0,
    lambda a: a.to(torch.int64) + 1.0,
    lambda a: a.to(torch.int64) + 1,
    lambda a: a.t() * 2,  # transposed, and so is what comes of it
    lambda a: a @ a.t(),
    lambda a: torch.cat([a, a], dim=1),
    lambda a: a[1:, 2:].expand(2, 3, 4),
    lambda a: a.chunk(2, dim=1)[1] + 1,
    lambda a: a.unbind(1)[2],
    lambda a: a.bfloat16().view(2, 12),
    lambda a: a[:, 1:3].add_(1),  # a view, changed in place
    lambda a: torch.topk(a, 2, dim=1)[1],
    lambda a: torch.ops.aten.native_layer_norm(a, (6,), None, None, 1e-5)[1],
    lambda a: torch.nn.functional.scaled_dot_product_attention(*[a.view(1, 2, 2, 6)] * 3),
    lambda a: torch.empty_like(a, device="cpu", dtype=torch.float64),
    lambda a: torch.zeros(3, 2),
    lambda a: a.unsqueeze_(0),
]


@pytest.mark.parametrize("do", OPERATIONS)
def test_the_second_result_is_as_the_first(do):
    mode = FakeTensorMode()
    with mode:
        wanted = seen(do(torch.empty(4, 6)))
        for _ in range(2):
            with RememberedFakes(mode):
                assert seen(do(torch.empty(4, 6))) == wanted


def test_a_view_is_of_its_argument_and_a_result_is_not():
    mode = FakeTensorMode()
    with mode, RememberedFakes(mode):
        a, b = torch.empty(4, 6), torch.empty(4, 6)
        for _ in range(2):
            for one in (a, b):
                parts = [one.t(), *one.chunk(2), one.view(24), torch.cat([one, one]).t()]
                of = [
                    part.untyped_storage()._cdata == one.untyped_storage()._cdata for part in parts
                ]
                assert of == [True, True, True, True, False]


def test_what_is_remembered_is_not_found_again(known):
    mode = FakeTensorMode()
    with mode:
        a = torch.empty(4, 6)
        with RememberedFakes(mode):
            torch.softmax(a, dim=1)
        (key,) = known
        known[key] = None, [((2, 3), (3, 1), torch.int8, 0, a.device, None)]
        with RememberedFakes(mode):
            made, other = torch.softmax(a, dim=1), torch.softmax(a, dim=0)
    assert made.shape == (2, 3) and made.dtype == torch.int8 and other.shape == a.shape


def test_numbers_are_found_each_time(known):
    """Of tensors that have them: real ones, and fake ones that are constants."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    real = torch.arange(2.0)
    with mode, RememberedFakes(mode):
        for number in (2.0, 3.0):
            assert (torch.tensor(number) + 1).item() == number + 1
            assert seen(real * number)
    assert not known


def test_not_more_than_so_many_are_kept(known, monkeypatch):
    monkeypatch.setattr(fakes, "MOST", 3)
    mode = FakeTensorMode()
    with mode, RememberedFakes(mode):
        for size in range(1, 9):
            torch.softmax(torch.empty(size, 2), dim=1)
            assert 0 < len(known) <= 3


@pytest.mark.parametrize(("bf16", "checkpointing"), [(False, False), (True, True)])
def test_bytes_are_those_without(zoo, monkeypatch, bf16, checkpointing):
    from salt_zoo.core.methods.meta import copied_network, on_meta
    from salt_zoo.core.networks.condition import example

    config = zoo.backbones.configure("wan", {"size": "digits"}, "test")
    backbone = zoo.backbones.create("wan", config, zoo)

    def peak():
        with on_meta(backbone):
            network = copied_network(backbone)
            if checkpointing:
                network.enable_gradient_checkpointing()
            condition = example(backbone)
        return peak_activation_bytes(network, condition, backbone.latent_shape, 2, bf16)

    found = [peak(), peak()]
    monkeypatch.setattr(activations, "RememberedFakes", lambda mode: nullcontext())
    assert found == [peak()] * 2
