"""The one rollout: steps, exits, gradients, blocks and their memory."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.guidance import Guided
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.rollout.forcing import teacher_forced
from salt_zoo.rollout.sampler import full_time, iter_rollout, renoise_from, rollout
from tests.blocks.plugin import BLOCK, FRAMES, Means, ToyBackbone

TIMES = flow.step_list(4, 5.0)
RNG = KeyedRNG(0, rows=range(3))


@pytest.fixture
def toy():
    return ToyBackbone(None, None)


@pytest.fixture
def network(toy):
    return toy.network("student")


def arguments(toy, blocks=None, **more):
    """What `walk` and `rollout` are given, three videos long."""
    blocks = blocks or toy.blocks()
    return {
        "noise": RNG.randn(toy.latent_shape, "initial noise"),
        "condition": toy.encode_prompts(["one", "two", "one"]),
        "times": TIMES,
        "blocks": blocks,
        "renoise": renoise_from(RNG, blocks, toy.latent_shape),
        **more,
    }


@pytest.mark.parametrize("sampler", ["sde", "ode"])
@pytest.mark.parametrize("exit_step", [0, 2, None])
def test_all_frames_at_once_is_the_formula(toy, network, sampler, exit_step):
    given = arguments(toy, Blocks(), sampler=sampler, exit_step=exit_step)
    last = 3 if exit_step is None else exit_step
    x, condition = given["noise"], given["condition"]
    with torch.no_grad():
        for k in range(last + 1):
            v = network(x, torch.full((3,), TIMES[k]), condition)
            x0 = x - TIMES[k] * v
            if k == last:
                break
            following = TIMES[k + 1]
            if sampler == "ode":
                x = x - (TIMES[k] - following) * v
            else:
                x = (1 - following) * x0 + following * given["renoise"](0, following)
    assert torch.equal(rollout(network, **given), x0)


def test_rollout_is_the_walk_to_the_last_step(toy, network):
    exits = list(iter_rollout(network, **arguments(toy)))
    assert [exit.block for exit in exits] == [0, 1, 2]
    assert [exit.frames for exit in exits] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert all(exit.step == 3 and exit.t == TIMES[3] for exit in exits)
    video = torch.cat([exit.x0 for exit in exits], dim=2)
    assert torch.equal(video, rollout(network, **arguments(toy)))
    assert not video.requires_grad


def test_exit_is_consistent_in_itself(toy, network):
    for exit in iter_rollout(network, **arguments(toy, exit_step=2)):
        assert torch.equal(exit.x0, flow.x0_from_velocity(exit.x, exit.v, exit.t))


@pytest.mark.parametrize(
    "times", [[1.0, 0.5, 0.5], [0.5, 1.0], [1.0, 0.0], [1.5], [], [float("nan")]]
)
def test_times_must_fall(toy, network, times):
    with pytest.raises(ValueError, match="must fall strictly"):
        rollout(network, **arguments(toy) | {"times": times})


@pytest.mark.parametrize("exit_step", [-1, 4])
def test_exit_step_must_be_one_of_the_list(toy, network, exit_step):
    with pytest.raises(ValueError, match="is not one of 4 steps"):
        rollout(network, **arguments(toy, exit_step=exit_step))


def test_blocks_must_fill_the_video(toy, network):
    with pytest.raises(ValueError, match="6 frames cannot be split into blocks of 4"):
        rollout(network, **arguments(toy, Blocks(4)))
    assert Blocks(3).split(6) == [slice(0, 3), slice(3, 6)]
    assert Blocks().split(6) == [slice(0, 6)]


def test_gradient_comes_from_the_exit_step_alone(toy, network):
    """The loss's gradient is that of one evaluation at a fixed input under a fixed memory."""
    exits = list(iter_rollout(network, **arguments(toy, exit_step=2, gradient=True)))
    for exit in exits:
        assert exit.v.requires_grad and exit.x0.requires_grad
        assert not exit.x.requires_grad
        assert all(not block.requires_grad for block in exit.memory.blocks)
    found = torch.autograd.grad(
        sum(exit.x0.square().sum() for exit in exits), list(network.parameters()), allow_unused=True
    )

    total = 0.0
    for number, exit in enumerate(exits):
        known = Means(3, [block.clone() for block in exit.memory.blocks[:number]])
        v = network(exit.x.clone(), full_time(exit.t, exit.x), exit.condition, known)
        total = total + flow.x0_from_velocity(exit.x, v, exit.t).square().sum()
    wanted = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
    for name, one, other in zip(dict(network.named_parameters()), found, wanted, strict=True):
        if name.startswith("write"):  # only the memory is written with it
            assert one is None and other is None
        else:
            torch.testing.assert_close(one, other)


def test_without_gradient_there_is_none(toy, network):
    assert not any(exit.v.requires_grad for exit in iter_rollout(network, **arguments(toy)))


def test_a_block_is_committed_after_its_exit_was_handed_out(toy, network):
    for number, exit in enumerate(iter_rollout(network, **arguments(toy, exit_step=1))):
        assert len(exit.memory.blocks) == number
        assert [call[0] for call in network.calls].count("update_cache") == number
    one_block = [("forward", BLOCK, TIMES[0]), ("forward", BLOCK, TIMES[1])]
    wanted = []
    for number in range(3):
        wanted += [
            (what, frames, pytest.approx(t), number)
            for what, frames, t in [*one_block, ("update_cache", BLOCK, 0.0)]
        ]
    assert network.calls == wanted[:-1]  # nothing follows the last block, so it is not committed


def test_the_memory_holds_the_clean_estimates(toy, network):
    exits = list(iter_rollout(network, **arguments(toy, exit_step=1)))
    memory = exits[-1].memory
    assert len(memory.blocks) == 2
    for block, exit in zip(memory.blocks, exits, strict=False):
        assert torch.equal(block, network.write(exit.x0.mean(dim=(2, 3, 4))))


def test_probing_at_the_exit_changes_nothing(toy, network):
    def video(probe):
        parts = []
        for exit in iter_rollout(network, **arguments(toy, exit_step=1, gradient=True)):
            before = [block.clone() for block in exit.memory.blocks]
            if probe:
                network(exit.x, full_time(0.3, exit.x), exit.condition, exit.memory)
            assert all(map(torch.equal, before, exit.memory.blocks))
            assert len(before) == len(exit.memory.blocks)
            parts.append(exit.x0)
        return torch.cat(parts, dim=2)

    assert torch.equal(video(probe=True), video(probe=False))


def test_later_blocks_depend_on_earlier_ones_only(toy, network):
    given = arguments(toy)
    before = rollout(network, **given)
    given["noise"] = given["noise"].clone()
    given["noise"][:, :, 2:4] += 1
    after = rollout(network, **given)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.equal(before[:, :, 4:], after[:, :, 4:])


def test_renoise_is_shared_at_shared_times():
    """Lists of 2, 4 and 8 steps meet the same noise at the times that they share."""
    shape, blocks = (2, 4, 1, 1), Blocks(2)
    renoise = renoise_from(RNG, blocks, shape)
    shared = set(flow.step_list(2, 5.0)) & set(flow.step_list(8, 5.0))
    assert len(shared) == 2
    for t in shared:
        assert torch.equal(renoise(1, t), renoise_from(RNG, blocks, shape)(1, t))
        assert renoise(1, t).shape == (3, 2, 2, 1, 1)
    assert not torch.equal(renoise(0, 0.5), renoise(1, 0.5))
    assert not torch.equal(renoise(0, 0.5), renoise(0, 0.6))


def test_teacher_forcing_gives_each_network_the_clean_past(toy):
    one, two = toy.network("student"), toy.network("student")
    video = RNG.randn(toy.latent_shape, "video")
    condition = toy.encode_prompts(["one", "two", "one"])
    for number, (frames, memories) in enumerate(
        teacher_forced([one, two], video, condition, toy.blocks())
    ):
        assert frames == slice(BLOCK * number, BLOCK * (number + 1))
        assert memories[0] is not memories[1]
        for network, memory in zip((one, two), memories, strict=True):
            assert len(memory.blocks) == number
            for k, block in enumerate(memory.blocks):
                clean = video[:, :, BLOCK * k : BLOCK * (k + 1)]
                assert torch.equal(block, network.write(clean.mean(dim=(2, 3, 4))))
                assert not block.requires_grad
    assert number == FRAMES // BLOCK - 1
    assert [call[:3] for call in one.calls] == [("update_cache", BLOCK, 0.0)] * 2


def test_teacher_forcing_without_a_memory_is_one_block(toy, network):
    video = RNG.randn(toy.latent_shape, "video")
    walked = list(teacher_forced([network], video, {}, Blocks()))
    assert walked == [(slice(0, FRAMES), [None])]
    assert network.calls == []


def test_guidance_keeps_a_memory_for_each_half(toy, network):
    """Guided generation with a memory is two networks' worth of it, combined at every step."""
    w, nothing = 3.0, toy.encode_prompts([""] * 3)
    guided = rollout(Guided(network, nothing, w), **arguments(toy, exit_step=1))

    given = arguments(toy)
    halves, parts = (Means(3), Means(3)), []
    with torch.no_grad():
        for block, frames in enumerate(given["blocks"].split(FRAMES)):
            x = given["noise"][:, :, frames]
            for k in range(2):
                t = full_time(TIMES[k], x)
                uncond = network(x, t, nothing, halves[0])
                cond = network(x, t, given["condition"], halves[1])
                x0 = x - TIMES[k] * (uncond + w * (cond - uncond))
                if k == 0:
                    x = flow.add_noise(x0, given["renoise"](block, TIMES[1]), TIMES[1])
            parts.append(x0)
            network.update_cache(x0, full_time(0.0, x), nothing, halves[0])
            network.update_cache(x0, full_time(0.0, x), given["condition"], halves[1])
    torch.testing.assert_close(guided, torch.cat(parts, dim=2))


def test_guidance_of_one_is_a_single_pass(toy, network):
    plain = rollout(network, **arguments(toy))
    calls, network.calls = network.calls, []
    guided = rollout(Guided(network, toy.encode_prompts([""] * 3), 1.0), **arguments(toy))
    assert torch.equal(plain, guided)
    assert network.calls == calls
