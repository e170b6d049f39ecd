"""Hidden states out of the middle of a network: what they are, and that nothing else is run."""

from __future__ import annotations

import pytest
import torch

from salt_zoo_wan.transformer.network import WanNetwork
from tests.plugins import tiny_causal as tiny

FRAMES = 6


def states(network, x, block):
    """What a whole pass has after one of the transformer's blocks, seen from outside."""
    kept = []
    hook = network.transformer.blocks[block].register_forward_hook(
        lambda module, inputs, output: kept.append(output.detach())
    )
    network(x, tiny.at(0.4), tiny.prompt())
    hook.remove()
    return kept[0]


@pytest.mark.parametrize("kind", ["bidirectional", "causal"])
@pytest.mark.parametrize(("depth", "block"), [(0.0, 0), (0.5, 1), (1.0, 1)])
def test_features_are_those_of_a_whole_pass(kind, depth, block):
    network = tiny.network() if kind == "causal" else WanNetwork(tiny.transformer())
    x = tiny.video(FRAMES)
    found = network.features(x, tiny.at(0.4), tiny.prompt(), depth)
    assert torch.equal(found, states(network, x, block))
    assert len(network.transformer.blocks) == 2


def test_later_blocks_are_not_run():
    network = WanNetwork(tiny.transformer())
    ran = []
    for index, block in enumerate(network.transformer.blocks):
        block.register_forward_pre_hook(lambda module, inputs, index=index: ran.append(index))
    network.features(tiny.video(FRAMES), tiny.at(0.4), tiny.prompt(), 0.0)
    assert ran == [0]
    ran.clear()
    network(tiny.video(FRAMES), tiny.at(0.4), tiny.prompt())
    assert ran == [0, 1]


def test_gradient_checkpointing_changes_no_gradient():
    """The gradient runs through the activations of a frozen network."""
    found = []
    for checkpointing in (False, True):
        network = WanNetwork(tiny.transformer()).requires_grad_(False).train()
        if checkpointing:
            network.enable_gradient_checkpointing()
        x = tiny.video(FRAMES).requires_grad_()
        network.features(x, tiny.at(0.4), tiny.prompt(), 0.0).square().sum().backward()
        found.append(x.grad)
    assert found[0].abs().sum() > 0
    torch.testing.assert_close(found[0], found[1])


def test_a_failing_pass_leaves_the_network_whole():
    network = WanNetwork(tiny.transformer())
    with pytest.raises(KeyError):
        network.features(tiny.video(FRAMES), tiny.at(0.4), {}, 0.0)
    assert len(network.transformer.blocks) == 2


def test_features_of_a_network_that_goes_block_by_block():
    """Relative positions and more frames than are kept: no mask can say what is seen."""
    memory = tiny.policy("block-relative", frames=4, sink=0)
    network = tiny.network(memory)
    x = tiny.video(FRAMES)
    assert not network.can_mask(FRAMES)
    found = network.features(x, tiny.at(0.4), tiny.prompt(), 0.0)
    first = network.features(x[:, :, :2], tiny.at(0.4), tiny.prompt(), 0.0)
    assert found.shape[1] == 3 * first.shape[1]
    torch.testing.assert_close(found[:, : first.shape[1]], first)
