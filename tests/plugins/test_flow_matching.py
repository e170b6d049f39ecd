"""Diffusion forcing: what blocks see, its optimum on a Gaussian, the case of a single block."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.forcing import forward_block_causal
from salt_zoo.training.launch import train
from salt_zoo_flow_matching.draws import times_by_block
from salt_zoo_flow_matching.method import DiffusionForcing, FlowMatchingConfig
from tests.blocks.plugin import BLOCK, FRAMES, ToyBackbone
from tests.gaussian import closed_form
from tests.gaussian.networks import GaussianNetwork, points
from tests.gaussian.plugin import covariance, means

RNG = KeyedRNG(0, rows=range(3))


@pytest.mark.parametrize("backbone", ["gaussian", "wan"])
def test_on_a_bidirectional_backbone_it_is_bitwise_teacher_forcing(backbone, teacher, tmp_path):
    zoo = load_zoo(["tests.gaussian.plugin"])
    part = {"name": backbone}
    if backbone == "wan":
        part["options"] = {"weights": str(teacher)}

    def trained(method):
        content = {
            "method": {"name": method, "learning_rate": 1e-2, "prompt_dropout": 0.5},
            "backbone": part,
            "dataset": "gaussian" if backbone == "gaussian" else "digits",
            "training": {"updates": 2, "batch_size": 4, "trackers": []},
        }
        logs = []
        made = train(
            resolve(content, zoo, "test"),
            tmp_path / method,
            zoo,
            "cpu",
            lambda step, updates, found: logs.append(found),
        )
        return logs, made.networks["student"].state_dict()

    (logs, weights), (others, theirs) = trained("diffusion-forcing"), trained("teacher-forcing")
    assert logs == others
    assert all(torch.equal(weights[name], theirs[name]) for name in theirs)


class Framewise(GaussianNetwork):
    """One Gaussian for every frame, each at a time of its own."""

    def forward(self, x, t, condition, memory=None):
        assert memory is None and t.shape == (x.shape[0], x.shape[2])
        single = x.movedim(2, 1).flatten(0, 1)[:, :, None]
        which = {"which": condition["which"].repeat_interleave(x.shape[2], dim=0)}
        v = super().forward(single, t.flatten(), which)
        return v[:, :, 0].unflatten(0, (x.shape[0], x.shape[2])).movedim(1, 2)


def test_blocks_at_times_of_their_own_reach_the_gaussians_velocity():
    mean, spread = means()[:1], covariance("full")
    network = Framewise(torch.zeros(1, 2), torch.eye(2))
    method = DiffusionForcing(FlowMatchingConfig(start="random", prompt_dropout=0), None)
    blocks, shape, rows = Blocks(2, new_memory=lambda network, x: None), (2, 6, 8, 8), 16
    one = {"which": torch.ones(rows, 1)}
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    root = closed_form.root(spread)
    for step in range(300):
        rng = KeyedRNG(0, ("train", step), range(rows))
        x0 = torch.einsum("de,befhw->bdfhw", root, rng.randn(shape, "places"))
        x0 = x0 + mean.view(2, 1, 1, 1)
        optimizer.zero_grad()
        method.train(
            TrainStep(
                role="student",
                index=step,
                networks={"student": network},
                batch=Batch([""] * rows, one, one, x0),
                rng=rng,
                blocks=blocks,
                latent_shape=shape,
                backward=lambda loss: loss.backward(),
            )
        )
        optimizer.step()
        schedule.step()
    x, t = RNG.randn((2, 1, 4, 4), "x"), 0.4
    found = network(x, torch.full((3, 1), t), {"which": torch.ones(3, 1)})
    wanted = closed_form.velocity(points(x), t, mean[0], spread)
    torch.testing.assert_close(points(found), wanted, rtol=0, atol=0.05)
    assert (network.roots[0] @ network.roots[0].T - spread).norm() / spread.norm() < 0.03


def noisy_turn():
    toy = ToyBackbone(None, None)
    x0 = RNG.randn(toy.latent_shape, "video")
    condition = toy.encode_prompts(["one", "two", "one"])
    network = toy.network("student")
    step = TrainStep(
        role="student",
        index=0,
        networks={"student": network},
        batch=Batch(["one", "two", "one"], condition, condition, x0),
        rng=RNG,
        blocks=toy.blocks(),
        latent_shape=toy.latent_shape,
        backward=lambda loss: loss.backward(),
    )
    return step, network, x0, condition


def test_an_autoregressive_network_is_passed_once_with_a_time_for_each_frame():
    step, network, x0, condition = noisy_turn()
    found = DiffusionForcing(FlowMatchingConfig(prompt_dropout=0), None).train(step)["loss"]
    assert [call[:2] + call[3:] for call in network.calls] == [("forward", FRAMES, None)]
    t = times_by_block(step, FRAMES, 5.0)
    assert len(set(t[0].tolist())) == FRAMES // BLOCK
    noise = RNG.randn(step.latent_shape, "noise")
    v = network(flow.add_noise(x0, noise, t), t, condition)
    torch.testing.assert_close(found, (v - (noise - x0)).square().mean().detach())


def test_without_a_mask_the_memory_holds_the_noisy_blocks():
    step, network, x0, condition = noisy_turn()
    network.can_mask = lambda frames: False
    network.forward_masked = lambda *given: None
    t = times_by_block(step, FRAMES, 5.0)
    parts = [part for part, _ in forward_block_causal(network, x0, t, condition, step.blocks)]
    assert parts == step.blocks.split(FRAMES)
    times = [float(t[0, part.start]) for part in parts]
    assert network.calls == [
        ("forward", BLOCK, times[0], 0),
        ("update_cache", BLOCK, times[0], 0),
        ("forward", BLOCK, times[1], 1),
        ("update_cache", BLOCK, times[1], 1),
        ("forward", BLOCK, times[2], 2),
    ]


def test_the_mask_and_the_memory_give_the_same_velocity(zoo, teacher):
    content = {"size": "digits", "options": {"weights": str(teacher)}}
    options = zoo.backbones.configure("self-forcing", content, "test")
    backbone = zoo.backbones.create("self-forcing", options, zoo)
    network = backbone.network("student").requires_grad_(False)
    blocks, condition = backbone.blocks(), backbone.encode_prompts(["a 7 moving up slowly"] * 3)
    x = RNG.randn(backbone.latent_shape, "x")
    t = torch.tensor([0.9, 0.2, 0.6]).repeat_interleave(3).expand(3, -1)
    ((_, whole),) = forward_block_causal(network, x, t, condition, blocks)
    network.can_mask = lambda frames: False
    parts = [v for _, v in forward_block_causal(network, x, t, condition, blocks)]
    assert len(parts) == 3
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=1e-4, atol=1e-5)
