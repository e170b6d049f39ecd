"""Copies of networks are those that `copy.deepcopy` makes."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from salt_zoo.core.networks.copies import copied
from salt_zoo.core.networks.lora import LoraConfig, add_lora
from salt_zoo.core.networks.precision import with_precision


class Named:
    def __init__(self, owner):
        self.owner = owner


class Net(nn.Module):
    """With all that a copy could lose: tied weights, a module in two places, buffers, hooks, and
    objects that know the network."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.again = self.first
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
        self.register_buffer("scale", torch.tensor([2.0]))
        self.blocks[0].weight.requires_grad_(False)
        self.known, self.nothing, self.shape = Named(self), {}, (1, [2])
        self.also = self.nothing
        self.calls = []
        self.blocks[1].register_forward_hook(self.called)
        self.blocks.eval()

    def called(self, module, args, output):
        self.calls.append(output)

    def forward(self, x):
        for layer in (self.first, self.second, *self.blocks):
            x = layer(x)
        return self.scale * x


class Own(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo):
        return "of its own"


def test_a_copy_is_whole_and_apart():
    net, x = Net(), torch.ones(2)
    for made in (copied(net), copy.deepcopy(net)):
        assert torch.equal(made(x), net(x))
        assert len(made.calls) == 1  # by its own hook
        assert made.known.owner is made and made.also is made.nothing is not net.nothing
        assert made.second.weight is made.first.weight and made.again is made.first
        assert [p.requires_grad for p in made.parameters()] == [
            p.requires_grad for p in net.parameters()
        ]
        assert [m.training for m in made.modules()] == [m.training for m in net.modules()]
        assert not {id(p) for p in made.parameters()} & {id(p) for p in net.parameters()}
        assert made.scale is not net.scale and made.shape[1] is not net.shape[1]
        assert vars(made).keys() == vars(net).keys()
        made.register_forward_hook(lambda *a: None)
        made.nothing["one"] = 1
        net.calls.clear()
    assert not net._forward_hooks and not net.nothing


def test_what_is_there_already_is_shared():
    net = Net()
    made = copied(net, {id(net.first.weight): net.first.weight, id(net.blocks[0]): net.blocks[0]})
    assert made.first.weight is made.second.weight is net.first.weight
    assert made.blocks[0] is net.blocks[0] and made.blocks[1] is not net.blocks[1]


def test_networks_of_a_run_are_copied_whole():
    """Held in bf16, with adapters, and with a parametrised layer, whose class is its own."""
    network = nn.Sequential()
    network.adapted, network.other = nn.Linear(4, 4), weight_norm(nn.Linear(4, 4))
    add_lora(network, LoraConfig(rank=2, targets=("adapted",)), "test")
    network = with_precision(network, "bf16", torch.device("cpu"), frozen=False)
    made, x = copied(network), torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    first = network(x)
    assert type(made) is type(network) and torch.equal(made(x), first)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 1
    assert torch.equal(made(x), first) and not torch.equal(network(x), first)


def test_a_module_that_copies_itself_does():
    assert copied(nn.Sequential(nn.Linear(2, 2), Own(2, 2)))[1] == "of its own"
