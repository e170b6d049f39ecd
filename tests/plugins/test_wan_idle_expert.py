"""An expert without a row, which takes part in a pass because another process has rows for it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils.flop_counter import FlopCounterMode

from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.base.sequence import SequenceGroup
from tests.plugins.test_wan_a14b import make_backbone, make_image, save_tiny
from tests.test_matrix import ZOO

#: By size, how many times as much as the other expert alone both may take: of the small image size
#: 512 tokens of text are most of a pass.
MOST = {"test-experts": 1.05, "wan2.2-i2v-a14b": 1.7}


@pytest.fixture(scope="module", params=list(MOST))
def made(request, tmp_path_factory):
    """The name of a size, its backbone and the condition of one row."""
    size = request.param
    if size == "test-experts":
        backbone = ZOO.backbones.create(
            "wan", ZOO.backbones.configure("wan", {"size": size}, "test"), ZOO
        )
        return size, backbone, backbone.encode_prompts(["a 7 moving left slowly"])
    folder = save_tiny(size, tmp_path_factory.mktemp("tiny") / "a14b")
    backbone = make_backbone(ZOO, size, folder, height=96, width=96)
    image = interpolate(make_image()[None], (96, 96))
    return size, backbone, {**backbone.encode_prompts(["a"]), **backbone.encode_images(image)}


def costs(network, given, depth):
    """Bytes kept for the backward pass beside the weights, FLOPs of both passes, and the weights'
    gradients."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    network.zero_grad(set_to_none=True)
    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        out = network(*given) if depth == 1 else network.features(*given, depth)
        held = sum(storage.nbytes() for storage in kept.values())
        out.square().mean().backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    return held, counter.get_total_flops(), gradients


@pytest.mark.parametrize(("per_frame", "depth"), [(True, 1), (False, 0.5)])
def test_it_costs_next_to_nothing(made, per_frame, depth):
    """Its weights have a gradient, of zeros, those of the other the one that they have alone: every
    process then has some for the same weights, of which the plans count one expert's pass."""
    size, backbone, condition = made
    network = backbone.network("student")
    network.enable_gradient_checkpointing()
    network.requires_grad_(True).train()
    x = KeyedRNG(3, rows=range(1)).randn(backbone.latent_shape, "x")
    for side, time in (("high", 0.95), ("low", 0.2)):
        t = torch.full((1, x.shape[2])[: 1 + per_frame], time)
        alone = costs(network, (x, t, condition), depth)
        rows = {"high": ([0], []), "low": ([], [0])}[side]
        network._rows = lambda t, rows=rows: (rows, [1, 1])  # as if another process had the other
        together = costs(network, (x, t, condition), depth)
        del network._rows
        for mine, theirs in zip(alone[:2], together[:2], strict=True):
            assert mine < theirs < MOST[size] * mine
        assert len(together[2]) == len(alone[2])
        for name, gradient in together[2].items():
            wanted = alone[2][name]
            if name.startswith(side):
                same = gradient is wanted is None or torch.equal(gradient, wanted)
            else:
                assert wanted is None
                twin = alone[2][name.replace(name.partition(".")[0], side, 1)]
                same = gradient is twin is None or not gradient.any()
            assert same, name


def test_processes_that_share_videos_have_a_token_each(made):
    _, backbone, condition = made
    network = backbone.network("student").requires_grad_(True)
    network.enable_sequence_parallelism(SequenceGroup(2), backbone.latent_shape)
    network._rows = lambda t: (([0], []), [1, 1])
    x = KeyedRNG(3, rows=range(1)).randn(backbone.latent_shape, "x")
    v = network(x, torch.tensor([0.95]), condition)
    assert v.shape == x.shape
    v.square().mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())
