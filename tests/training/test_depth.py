"""Numbers of a deep network from a few of its blocks: exactly those of the whole, or the whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from salt_zoo.core.methods.meta import kept_network, on_meta
from salt_zoo.core.networks.copies import copied
from salt_zoo.costs.activations import peak_activation_bytes
from salt_zoo.costs.counter import Pass
from salt_zoo.costs.depth import DEPTHS, alike, over_depth
from salt_zoo.costs.flops import _measure

LAYERS = 7  # more than are measured in three depths


@pytest.fixture
def deep(zoo, monkeypatch):
    """Makes a backbone whose networks have so many blocks."""
    from salt_zoo_digits import size

    monkeypatch.setitem(size.TRANSFORMER, "num_layers", LAYERS)

    def make(name):
        config = zoo.backbones.configure(name, {"size": "digits"}, "test")
        return zoo.backbones.create(name, config, zoo)

    return make


def seen(measure):
    """`measure`, and the numbers of blocks that it was given."""
    depths = []

    def spy(network):
        depths.append(len(alike(network)[0][2]))
        return measure(network)

    return spy, depths


# of a pass that is not recorded nothing is computed again
@pytest.mark.parametrize(
    ("name", "kind", "checkpointing"),
    [
        ("wan", Pass(9), False),
        ("wan", Pass(9, weights=True), False),
        ("wan", Pass(9, weights=True), True),
        ("wan", Pass(9, inputs=True), True),
        ("self-forcing", Pass(None), False),
        ("self-forcing", Pass(None, weights=True), True),
    ],
)
def test_flops(deep, name, kind, checkpointing):
    backbone = deep(name)
    with on_meta(backbone):
        network = kept_network(backbone, checkpointing)
        condition = backbone.encode_prompts([""])
        spy, depths = seen(
            lambda one: _measure(one, kind, condition, backbone.latent_shape, backbone.blocks(one))
        )
        found = over_depth(network, spy)
        assert depths == list(DEPTHS) and len(alike(network)[0][2]) == LAYERS
        assert found == spy(copied(network))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations(deep, checkpointing):
    backbone = deep("wan")
    with on_meta(backbone):
        condition = backbone.encode_prompts([""])
        spy, depths = seen(
            lambda one: (peak_activation_bytes(one, condition, backbone.latent_shape, 2, False),)
        )
        found = over_depth(kept_network(backbone, checkpointing), spy)
        assert depths == list(DEPTHS)
        assert found == spy(copied(kept_network(backbone, checkpointing)))


def test_blocks_that_differ_are_all_measured():
    assert alike(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []
    uneven = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(LAYERS))})
    spy, depths = seen(lambda network: (float(len(network["blocks"]) ** 2),))
    assert over_depth(uneven, spy) == (LAYERS**2,)
    assert depths == [*DEPTHS, LAYERS]


def test_blocks_of_two_networks_in_one_are_measured_together():
    """As those of two experts: a second one that is left whole would be carried through each."""

    def blocks(count):
        return nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(count))})

    one = nn.ModuleDict({"high": blocks(LAYERS), "low": blocks(LAYERS), "other": blocks(2)})
    found = []

    def sizes(network):
        found.append(tuple(len(network[name]["blocks"]) for name in ("high", "low", "other")))
        return (float(sum(p.numel() for p in network.parameters())),)

    assert over_depth(one, sizes) == sizes(one)
    assert found == [*((depth, depth, 2) for depth in DEPTHS), (LAYERS, LAYERS, 2)]


def test_the_network_is_left_as_it_was_when_measuring_fails():
    network = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(LAYERS))})

    def fail(one):
        raise RuntimeError("it needs data")

    with pytest.raises(RuntimeError):
        over_depth(network, fail)
    assert len(network["blocks"]) == LAYERS
    assert torch.nn.utils.parameters_to_vector(network.parameters()).numel() == 6 * LAYERS
