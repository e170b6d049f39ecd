"""ODE trajectories against the exact flow of Gaussian data, and regression onto them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core import flow
from salt_zoo.core.base.config import validate
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.costs.passes import count_forward_passes
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.sampler import initial_noise, renoise_from, rollout
from salt_zoo.training.launch import train
from salt_zoo_ode.method import OdeRegression, OdeRegressionConfig
from salt_zoo_ode.trajectories import TrajectoryConfig, draw_trajectories, ode_states, with_times
from tests.blocks.plugin import BLOCK, FRAMES, ToyBackbone
from tests.gaussian import closed_form
from tests.gaussian.networks import points
from tests.gaussian.plugin import GaussianBackbone, GaussianConfig, covariance, means

ROWS = 3
RNG = KeyedRNG(0, rows=range(ROWS))


def test_the_grid_holds_the_step_list():
    config = TrajectoryConfig(steps=4, teacher_steps=8)
    assert config.grid == flow.step_list(8, 5.0)  # a multiple: nothing is added
    config = TrajectoryConfig(steps=4, teacher_steps=50)
    assert set(config.kept_times) < set(config.grid) and len(config.grid) == 52
    assert flow.check_times(config.grid) == config.grid
    assert with_times([1.0, 0.5], [1.0, 0.5 + 1e-9]) == [1.0, 0.5 + 1e-9]


def test_times_of_no_step_list():
    """CausVid's `[1000, 757, 522, 0]`: states 0, 36 and 44 of 50 steps with shift 8, in whole
    timesteps; no shift makes a step list of them."""
    theirs = [flow.shift_time(1 - k / 50, 8.0) for k in (0, 36, 44)]
    config = TrajectoryConfig.model_validate({"times": [1, 0.757, 0.522], "timestep_shift": 8})
    assert [round(1000 * t) for t in theirs] == [1000 * t for t in config.kept_times]
    # the shifts that bring the second and third of three steps there
    shifts = [t * (1 - u) / (u * (1 - t)) for u, t in zip((2 / 3, 1 / 3), theirs[1:], strict=True)]
    assert [flow.shift_time(u, s) for u, s in zip((2 / 3, 1 / 3), shifts, strict=True)] == (
        pytest.approx(theirs[1:], abs=1e-12)
    )
    assert shifts[1] - shifts[0] > 0.5
    assert set(config.kept_times) < set(config.grid)
    assert flow.check_times(config.grid) == config.grid
    plain = TrajectoryConfig(times=tuple(flow.step_list(4, 5.0)), teacher_steps=8)
    assert plain.grid == TrajectoryConfig(teacher_steps=8).grid


def test_what_is_written_down_of_a_list():
    """What was written without times is what it was before there were any, and is read again."""
    for given in ({}, {"times": [1, 0.5]}, {"steps": 3}):
        config = TrajectoryConfig.model_validate(given)
        plain = config.model_dump(mode="json")
        assert ("times" in plain) == ("times" in given) and ("steps" in plain) != ("times" in given)
        assert TrajectoryConfig.model_validate(plain) == config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"times": [1, 0.5, 0]}, "within (0, 1], not [1.0, 0.5, 0.0]; the clean end, at 0, is not"),
        ({"times": [1000, 757, 522]}, "published timesteps are divided by 1000"),
        ({"times": [0.5, 0.7]}, "times must fall strictly"),
        ({"times": [1, 1]}, "times must fall strictly"),
        ({"times": []}, "times must fall strictly"),
        ({"times": 0.5}, "times"),
        ({"times": [1, 0.5], "steps": 2}, "steps: 2 are times of a step list, and times names 2"),
    ],
)
def test_times_that_are_wrong(given, message):
    with pytest.raises(ZooError, match=re.escape(message)):
        validate(OdeRegressionConfig, given, "method")


def test_the_ode_converges_to_the_exact_flow_map():
    backbone, sigma = GaussianBackbone(GaussianConfig(), None), covariance("full", torch.float64)
    network = backbone.network("teacher").double()
    noise = RNG.randn(backbone.latent_shape, "noise").double()
    condition = backbone.encode_prompts(["left"] * ROWS)
    times = flow.step_list(4, 5.0)
    exact = [
        closed_form.flow_map(points(noise), 1.0, t, means(torch.float64)[0], sigma)
        for t in [*times, 0.0]
    ]
    errors = []
    for steps in (16, 64, 256):
        grid = with_times(flow.step_list(steps, 5.0), times)
        renoise = renoise_from(RNG, Blocks(), backbone.latent_shape)
        states = ode_states(
            network, noise, condition, times, grid, blocks=Blocks(), renoise=renoise
        )
        assert states.shape == (ROWS, 5, *backbone.latent_shape)
        assert torch.equal(states[:, 0], noise)
        found = [points(state) for state in states.unbind(1)]
        errors.append([float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)])
    for k in range(1, 5):  # Euler is of first order
        coarse, middle, fine = (error[k] for error in errors)
        assert 3 < coarse / middle < 6 and 3 < middle / fine < 5
    assert errors[-1][-1] < 0.03


def toy_states(config, whose, w=2.0):
    toy = ToyBackbone(None, None)
    network = toy.network("student").requires_grad_(False)
    condition = toy.encode_prompts(["one", "two", "one"])
    unconditional = toy.encode_prompts([""] * ROWS)
    states = draw_trajectories(
        config, whose, network, RNG, condition, unconditional, w, toy.blocks(), toy.latent_shape
    )
    return states, toy, network, condition


def test_a_causal_trajectory_ends_where_generation_ends():
    config = TrajectoryConfig(steps=2, teacher_steps=6)
    states, toy, network, condition = toy_states(config, "student-start", w=1.0)
    blocks, shape = toy.blocks(), toy.latent_shape
    noise = initial_noise(RNG, blocks, shape)
    renoise = renoise_from(RNG, blocks, shape)
    made = rollout(
        network, noise, condition, config.grid, blocks=blocks, renoise=renoise, sampler="ode"
    )
    assert torch.equal(states[:, -1], made) and torch.equal(states[:, 0], noise)


def test_a_teacher_denoises_all_frames_at_once():
    config = TrajectoryConfig(steps=2, teacher_steps=6)
    states, _, network, _ = toy_states(config, "teacher")
    assert {call[:2] + call[3:] for call in network.calls} == {("forward", FRAMES, None)}
    assert len(network.calls) == 6
    assert torch.equal(states[:, 0], initial_noise(RNG, Blocks(), ToyBackbone.latent_shape))


def test_a_time_that_the_grid_lacks():
    with pytest.raises(ValueError, match="not all in the grid"):
        ode_states(None, torch.zeros(1), {}, [1.0, 0.5], [1.0], blocks=Blocks(), renoise=None)  # type: ignore[arg-type]


def test_the_optimum_is_the_exact_flow_map(tmp_path):
    zoo = load_zoo(["tests.gaussian.plugin"])
    recipe = {"count": 256, "batch_size": 128, "teacher_steps": 256, "guidance_scale": 2.0}
    recipe |= {"backbone": "gaussian", "dataset": "gaussian"}
    options = zoo.recipes.configure("trajectories", recipe, "test")
    zoo.recipes.create("trajectories", options, zoo).run(tmp_path / "ode", "cpu")
    content = {
        "method": {"name": "ode-regression", "of": "dataset"},
        "backbone": "gaussian",
        "dataset": {"name": "trajectories", "folder": str(tmp_path / "ode")},
        "training": {
            "updates": 200,
            "batch_size": 16,
            "optimizers": {
                "student": {"learning_rate": 0.04, "betas": [0.9, 0.99], "weight_decay": 0.0}
            },
            "schedule": {"warmup": 5, "decay_from": 0.3, "final": 0.02},
            "ema": {"decay": 0.97, "start": 10},
            "checkpoint_every": 200,
            "trackers": [],
        },
    }
    trainer = train(resolve(content, zoo, "test"), tmp_path / "run", zoo, "cpu")
    assert "teacher" not in trainer.networks
    network, sigma = trainer.networks.eval_network, covariance("full")
    mean = torch.lerp(means()[2], means()[0], 2.0)
    noise = RNG.randn((2, 1, 8, 8), "noise")
    condition = GaussianBackbone(GaussianConfig(), None).encode_prompts(["left"] * ROWS)
    for t in flow.step_list(4, 5.0):
        x = closed_form.flow_map(points(noise), 1.0, t, mean, sigma)
        x = x.transpose(1, 2).reshape(noise.shape)
        with torch.no_grad():
            v = network(x, torch.full((ROWS,), t), condition)
        found = points(flow.x0_from_velocity(x, v, t))
        wanted = closed_form.flow_map(points(noise), 1.0, 0.0, mean, sigma)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.06)


class Spy(torch.nn.Module):
    """Remembers what it is given; its clean estimate is `gain`, whatever the time."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x, t, condition, memory=None):
        self.seen.append((x, t, None if memory is None else list(memory)))
        return (x - self.gain) / flow.at(t, x).clamp(min=1e-3)

    def update_cache(self, x, t, condition, memory):
        memory.append((x, t))


def spied(config, rows=24, **batch):
    """The turn of a regression onto given states, and what its student has seen."""
    rng = KeyedRNG(0, rows=range(rows))
    shape = ToyBackbone.latent_shape
    states = rng.randn((config.steps + 1, *shape), "states")
    given = {"trajectory": states, "trajectory_times": tuple(config.kept_times)} | batch
    student = Spy()
    step = TrainStep(
        role="student",
        index=0,
        networks={"student": student},
        batch=Batch([""] * rows, {}, {}, None, **given),
        rng=rng,
        blocks=Blocks(BLOCK, new_memory=lambda network, x: []),
        latent_shape=shape,
        backward=lambda loss: loss.backward(),
    )
    return step, student, states


@pytest.mark.parametrize("context", ["noisy", "mixed"])
def test_blocks_are_at_states_of_their_own(context):
    config = OdeRegressionConfig(of="dataset", context=context)
    step, student, states = spied(config)
    loss = OdeRegression(config, None).train(step)["loss"]
    ((x, t, memory),) = student.seen
    assert memory is None
    times = [*config.kept_times, 0.0]
    found = {round(float(value), 6) for value in t.unique()}
    wanted = times if context == "mixed" else times[:-1]
    assert found == {round(value, 6) for value in wanted}
    assert (t.view(len(t), -1, BLOCK)[..., :1] == t.view(len(t), -1, BLOCK)).all()
    assert not (t == t[:, :1]).all()
    for row in range(len(t)):
        for frame in range(FRAMES):
            k = min(range(len(times)), key=lambda k: abs(times[k] - float(t[row, frame])))
            assert torch.equal(x[row, :, frame], states[row, k, :, frame])
    # the estimate is 0 everywhere; clean frames do not count
    noisy = (t > 0)[:, None, :, None, None].expand_as(x)
    torch.testing.assert_close(loss, states[:, -1][noisy].square().mean())
    assert float(student.gain.grad) == pytest.approx(-2 * float(states[:, -1][noisy].mean()))


def test_a_clean_context_is_the_endpoints():
    config = OdeRegressionConfig(of="dataset", context="clean")
    step, student, states = spied(config)
    loss = OdeRegression(config, None).train(step)["loss"]
    assert len(student.seen) == FRAMES // BLOCK
    for block, (_, _, memory) in enumerate(student.seen):
        assert len(memory) == block
        for past, (x, t) in enumerate(memory):
            assert torch.equal(x, states[:, -1, :, past * BLOCK : (past + 1) * BLOCK])
            assert (t == 0).all()
    torch.testing.assert_close(loss, states[:, -1].square().mean())


def test_context_follows_from_whose_trajectories():
    assert OdeRegressionConfig().sees == "mixed"
    assert OdeRegressionConfig(of="student-start").sees == "clean"
    assert OdeRegressionConfig(of="student-start", context="noisy").sees == "noisy"


def test_stored_trajectories_need_no_teacher():
    assert list(OdeRegression(OdeRegressionConfig(of="dataset"), None).roles()) == ["student"]
    roles = OdeRegression(OdeRegressionConfig(of="student-start"), None).roles()
    assert roles["teacher"].start == "student" and roles["teacher"].learning_rate is None


@pytest.mark.parametrize(("of", "passes"), [("dataset", 0), ("teacher", 16), ("student-start", 16)])
def test_passes_are_planned(of, passes):
    """Guidance doubles the 8 passes of the ODE; the toy's memory is written without a pass."""
    method = OdeRegression(OdeRegressionConfig(of=of, teacher_steps=8, context="noisy"), None)
    counts = count_forward_passes(method, ToyBackbone(None, None), 3).counts
    assert counts["student"] == {"forward": 1, "backward": 1}
    found = counts["teacher"]["forward"] if passes else counts.get("teacher", 0)
    assert found == pytest.approx(passes)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"trajectory": None, "trajectory_times": ()}, "the dataset has no trajectories"),
        (
            {"trajectory_times": (1.0, 0.75, 0.5, 0.25)},
            r"kept at times \[1, 0.75, 0.5, 0.25\] and the method's are \[1, 0.9375, 0.8333, 0.625"
            r"\]; set method.steps and method.timestep_shift, or method.times, to theirs$",
        ),
        ({"trajectory_times": (1.0,)}, r"kept at times \[1\]"),
        (
            {"trajectory": torch.zeros(24, 5, 1, 9, 16, 16)},
            r"are \[5, 1, 9, 16, 16\] and this backbone's would be \[5, 2, 6, 2, 2\]",
        ),
    ],
)
def test_trajectories_that_do_not_fit(batch, message):
    config = OdeRegressionConfig(of="dataset")
    step, _, _ = spied(config, **batch)
    with pytest.raises(ZooError, match=message):
        OdeRegression(config, None).train(step)


def test_the_datasets_trajectories_come_before_new_ones():
    config = OdeRegressionConfig(of="teacher", context="noisy")
    step, student, _ = spied(config)
    asked = Spy()
    step = replace(step, networks={"student": student, "teacher": asked})
    OdeRegression(config, None).train(step)
    assert student.seen and not asked.seen
