"""AdamW at beta1 = 0 against torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from salt_zoo.config.training import OptimizerConfig
from salt_zoo.training.state.memoryless_adamw import TOGETHER, MemorylessAdamW
from salt_zoo.training.state.optimizers import make_optimizers


def trained(network, optimizer, steps, start=0, skip=None):
    """Updates towards keyed random targets; `skip` is a weight that has no gradient at step 1."""
    for step in range(start, steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        network(x).square().mean().backward()
        if skip is not None and step == 1:
            skip.grad = None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return [p.detach().clone() for p in network.parameters()]


def network_of(layers):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(3, 3) for _ in range(layers)))


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("layers", [1, TOGETHER])  # of two weights each: one part, and two
def test_it_is_adamw_without_a_first_moment(weight_decay, layers):
    ours, torchs = network_of(layers), network_of(layers)
    own = MemorylessAdamW(ours.parameters(), 1e-2, 0.999, weight_decay)
    theirs = torch.optim.AdamW(
        torchs.parameters(), lr=1e-2, betas=(0.0, 0.999), weight_decay=weight_decay
    )
    for one, other in zip(
        trained(ours, own, 6, skip=ours[0].bias),
        trained(torchs, theirs, 6, skip=torchs[0].bias),
        strict=True,
    ):
        assert torch.equal(one, other)
    (weight,) = [p for p in ours[0].parameters() if p.ndim == 2]
    assert sorted(own.state[weight]) == ["exp_avg_sq", "step"]


def test_it_resumes_bitwise():
    whole, parted = network_of(1), network_of(1)
    wanted = trained(whole, MemorylessAdamW(whole.parameters(), 1e-2, 0.99, 0.01), 5)
    first = MemorylessAdamW(parted.parameters(), 1e-2, 0.99, 0.01)
    trained(parted, first, 3)
    second = MemorylessAdamW(parted.parameters(), 1e-2, 0.99, 0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    found = trained(parted, second, 5, start=3)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("betas, kept", [((0.0, 0.999), 1), ((0.9, 0.999), 2)])
def test_states_of_a_weight(betas, kept):
    """Numbers that an optimizer keeps a weight, after an update."""
    network = network_of(1)
    (optimizer,) = make_optimizers(network, OptimizerConfig(betas=betas), 1e-3)
    trained(network, optimizer, 1)
    numbers = sum(
        value.numel()
        for state in optimizer.state.values()
        for n, value in state.items()
        if n != "step"
    )
    assert numbers == kept * sum(p.numel() for p in network.parameters())


def test_it_goes_on_from_a_checkpoint_of_torchs():
    """Runs that began before it."""
    whole, parted = network_of(1), network_of(1)
    options = {"lr": 1e-2, "betas": (0.0, 0.99), "weight_decay": 0.01}
    wanted = trained(whole, torch.optim.AdamW(whole.parameters(), **options), 5)
    first = torch.optim.AdamW(parted.parameters(), **options)
    trained(parted, first, 3)
    second = MemorylessAdamW(parted.parameters(), 1e-2, 0.99, 0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert all(sorted(state) == ["exp_avg_sq", "step"] for state in second.state.values())
    found = trained(parted, second, 5, start=3)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
