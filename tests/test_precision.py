"""One policy for every pass of a network, and for nothing round it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from salt_zoo.core.guidance import Guided
from salt_zoo.core.networks.precision import (
    backward_in,
    compute_dtype,
    precision_of,
    resolve_precision,
    with_precision,
)
from salt_zoo_self_forcing.transformer.network import CausalWanNetwork
from salt_zoo_wan.transformer.network import WanNetwork
from tests.plugins.tiny_causal import at, network, prompt, transformer, video


def bidirectional() -> WanNetwork:
    return WanNetwork(transformer()).requires_grad_(False)


@contextmanager
def linear_dtypes(net: nn.Module) -> Iterator[set[torch.dtype]]:
    """The dtypes that the linear layers of the blocks compute in."""
    seen: set[torch.dtype] = set()
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and "blocks." in name
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def passes(net: CausalWanNetwork) -> dict[str, Any]:
    """Every way in which a causal network is evaluated."""

    def remembered() -> torch.Tensor:
        memory = net.new_memory(video(4))
        net.update_cache(video(2), at(0.0), prompt(), memory)
        return net(video(2, seed=3), at(0.5), prompt(), memory)

    return {
        "forward": lambda: net(video(4), at(0.5), prompt()),
        "forward_masked": lambda: net.forward_masked(video(4), at(0.5), video(4, seed=3), prompt()),
        "update_cache": remembered,
        "guided": lambda: Guided(net, prompt(5), 2.0)(video(4), at(0.5), prompt()),
        "features": lambda: net.features(video(4), at(0.5), prompt(), 0.5).float(),
    }


@pytest.mark.parametrize("kind", passes(network()))
@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_every_pass_is_in_the_policy_and_returns_float32(kind, precision, dtype):
    wanted = passes(network())[kind]()
    net = with_precision(network(), precision, "cpu")
    with linear_dtypes(net) as seen, torch.autocast("cpu", torch.bfloat16):  # not the caller's
        found = passes(net)[kind]()
    assert seen == {dtype}
    assert found.dtype == torch.float32
    error = float((found - wanted).norm() / wanted.norm())
    assert error == 0 if precision == "fp32" else 0 < error < 0.05


def test_auto_is_bf16_on_cuda_only():
    assert resolve_precision("auto", "cuda") == "bf16"
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("tf32", "cpu") == "tf32"
    assert precision_of(with_precision(network(), "auto", "cpu")) == "fp32"
    assert precision_of(with_precision(network(), "auto", torch.device("cuda", 1))) == "bf16"
    assert precision_of(network()) is None


def test_the_network_stays_what_it_is_and_a_later_policy_replaces_an_earlier():
    net = network()
    names = list(net.state_dict())
    assert with_precision(net, "bf16", "cpu") is net
    assert isinstance(net, CausalWanNetwork) and type(net).__name__ == "CausalWanNetwork"
    assert list(net.state_dict()) == names
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    with_precision(net, "fp32", "cpu")
    assert precision_of(net) == "fp32"
    assert torch.equal(net(video(4), at(0.5), prompt()), network()(video(4), at(0.5), prompt()))


def test_a_recorded_pass_after_one_without_gradient_reaches_every_weight():
    """In one autocast of the caller's, whose cache up to torch 2.10 cuts the second pass off from
    the weights (pytorch#112583); here no cache lives longer than a pass."""
    net = with_precision(bidirectional().requires_grad_(True), "bf16", "cpu")
    cached = []
    net.transformer.proj_out.register_forward_hook(
        lambda *_: cached.append(torch.is_autocast_cache_enabled())
    )
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            net(video(2), at(0.5), prompt())
        v = net(video(2), at(0.5), prompt())
    v.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert cached == [False, False]


def test_gradient_checkpointing_recomputes_in_the_same_precision():
    gradients = []
    for checkpointing in (False, True):
        net = with_precision(network().requires_grad_(True), "bf16", "cpu")
        if checkpointing:
            net.enable_gradient_checkpointing()
        v = net(video(4), at(0.5), prompt())
        with linear_dtypes(net) as seen:
            v.square().mean().backward()
        assert seen == ({torch.bfloat16} if checkpointing else set())
        gradients.append([p.grad for p in net.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_a_compiled_network_is_in_the_policy():
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    net = with_precision(network(), "bf16", "cpu", frozen=True)
    memory = net.new_memory(video(4))
    wanted = net(video(2), at(0.5), prompt(), memory)
    counter = CompileCounter()
    net.compile(backend=counter)
    for _ in range(2):
        assert torch.allclose(net(video(2), at(0.5), prompt(), memory), wanted, atol=1e-2)
    assert counter.frame_count > 0
    torch.compiler.reset()


@pytest.mark.parametrize("make", [network, bidirectional])
def test_frozen_weights_are_held_in_bf16_and_change_no_bit(make):
    wanted = with_precision(make(), "bf16", "cpu")(video(4), at(0.5), prompt())
    net = with_precision(make().requires_grad_(True), "bf16", "cpu", frozen=True)
    assert torch.equal(net(video(4), at(0.5), prompt()), wanted)
    dtypes = {name: p.dtype for name, p in net.transformer.named_parameters()}
    assert not any(p.requires_grad for p in net.parameters())
    assert dtypes["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert dtypes["patch_embedding.weight"] == torch.bfloat16
    for island in (
        "condition_embedder.time_embedder.linear_1.weight",
        "scale_shift_table",
        "blocks.0.scale_shift_table",
        "blocks.0.norm2.weight",
        "blocks.0.attn1.norm_q.weight",
    ):
        assert dtypes[island] == torch.float32
    held = sum(p.nbytes for p in net.parameters() if p.dtype == torch.bfloat16)
    assert held > 0.3 * sum(p.nbytes for p in net.parameters())


def test_gradients_flow_through_a_frozen_network_held_in_bf16():
    x = video(4).requires_grad_(True)
    net = with_precision(bidirectional(), "bf16", "cpu", frozen=True)
    net(x, at(0.5), prompt()).square().mean().backward()
    assert x.grad.dtype == torch.float32 and x.grad.abs().min() > 0


def test_a_network_that_names_no_islands_stays_float32():
    class Plain(nn.Module):
        """Leaves autocast on its own account, as a network of a third party may."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Any, t: Any, condition: Any, memory: Any = None) -> Any:
            with torch.autocast("cpu", enabled=False):
                return self.linear(x.movedim(1, -1)).movedim(-1, 1)

    net = with_precision(Plain(), "bf16", "cpu", frozen=True)
    assert net.linear.weight.dtype == torch.float32 and not net.linear.weight.requires_grad
    assert net(video(2), at(0.5), prompt()).dtype == torch.float32


def test_float64_stays():
    net = with_precision(bidirectional().double(), "fp32", "cpu")
    assert net(video(2).double(), at(0.5).double(), prompt()).dtype == torch.float64


def test_a_cache_has_the_dtype_of_the_policy():
    assert network().new_memory(video(4)).keys[0].dtype == torch.float32
    for frozen in (False, True):
        net = with_precision(network(), "bf16", "cpu", frozen=frozen)
        assert net.new_memory(video(4)).keys[0].dtype == torch.bfloat16
        blocks = net.partition
        assert blocks.memory(net, video(4)).keys[0].dtype == torch.bfloat16
        guided = Guided(net, prompt(5), 2.0)
        assert blocks.memory(guided, video(4)).keys[0].dtype == torch.bfloat16
    exact = with_precision(network(), "fp32", "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert exact.new_memory(video(4)).keys[0].dtype == torch.float32
        assert compute_dtype(network(), "cpu") == torch.bfloat16  # without a policy: the caller's


@pytest.mark.parametrize("frozen", [False, True])
def test_copies_and_the_meta_device(frozen):
    net = with_precision(network(), "bf16", "cpu", frozen=frozen)
    twin = copy.deepcopy(net)
    assert precision_of(twin) == "bf16"
    assert torch.equal(twin(video(4), at(0.5), prompt()), net(video(4), at(0.5), prompt()))
    twin.to("meta")
    blank = {"text": prompt()["text"].to("meta")}
    assert twin(video(4).to("meta"), at(0.5).to("meta"), blank).shape == video(4).shape
    assert next(net.parameters()).device.type == "cpu"


def test_tf32_is_float32_on_a_cpu():
    net, exact = (with_precision(network(), p, "cpu") for p in ("tf32", "fp32"))
    assert torch.equal(*(n(video(4), at(0.5), prompt()) for n in (net, exact)))


def test_tf32_is_switched_for_backward_only_and_switched_back():
    def now() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = now()
    for precision in ("tf32", "fp32", "bf16"):
        with pytest.raises(ZeroDivisionError), backward_in(precision, "cuda"):
            assert now() == (precision == "tf32",) * 2
            raise ZeroDivisionError
        assert now() == before
    with backward_in("tf32", "cpu"):
        assert now() == before
