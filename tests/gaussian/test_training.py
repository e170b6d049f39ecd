"""Short trainings through the real trainer, whose optimum is known.

Students are affine in their input, so that mean and covariance of what they generate are computed
exactly; tolerances are those of training alone. The covariance's is relative (Frobenius). It is the
full one: to a training a diagonal one is a case of it (`test_closed_form.py` has both).
"""

from __future__ import annotations

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.training.launch import train as train_run
from tests.gaussian import closed_form
from tests.gaussian.networks import points, videos
from tests.gaussian.plugin import MEANS, GaussianBackbone, GaussianConfig, covariance, means

F64 = torch.float64
PROMPTS = [prompt for prompt in MEANS if prompt]


@pytest.fixture(scope="module")
def gaussians():
    return load_zoo(["tests.gaussian.plugin"])


@pytest.fixture
def trained(gaussians, tmp_path):
    """Trains a method and returns the EMA of its student."""

    def run(method, rates, updates, batch_size=16, decay=0.99, **backbone):
        content = {
            "method": method,
            "backbone": {"name": "gaussian", **backbone},
            "dataset": {"name": "gaussian", "covariance": backbone.get("covariance", "full")},
            "training": {
                "updates": updates,
                "batch_size": batch_size,
                "optimizers": {
                    role: {"learning_rate": rate, "betas": [0.9, 0.99], "weight_decay": 0.0}
                    for role, rate in rates.items()
                },
                "schedule": {"warmup": 5, "decay_from": 0.5, "final": 0.02},
                "ema": {"decay": decay, "start": 10},
                "checkpoint_every": updates,
                "trackers": [],
            },
        }
        return train_run(resolve(content, gaussians, "test"), tmp_path, gaussians, "cpu")

    return run


def dmd(name, steps, sampler, self_consistency=None):
    objectives = {"distribution-matching": {"guidance_scale": 2.0}}
    if self_consistency:
        objectives["self-consistency"] = self_consistency
    return {
        "name": name,
        "steps": steps,
        "sampler": sampler,
        "fake_score": {"updates": 2},
        "objectives": objectives,
    }


def errors(network, prompt, times, sampler, wanted):
    """Distance of the generated mean, and relative one of the covariance, from `wanted`."""
    condition = GaussianBackbone(GaussianConfig(), None).encode_prompts([prompt])

    def velocity(x, t):
        video = videos(x.float()[None], torch.empty(1, 2, 1, 1, len(x)))
        with torch.no_grad():
            return points(network(video, torch.tensor([t]), condition))[0].double()

    mean, found = closed_form.generated(velocity, times, sampler, dimensions=2)
    mean_wanted, covariance_wanted = wanted
    spread = (found - covariance_wanted).norm() / covariance_wanted.norm()
    return float((mean - mean_wanted).abs().max()), float(spread)


def guided(prompt, w):
    """The Gaussian that the teacher at guidance `w` generates."""
    mean = torch.lerp(means(F64)[-1], means(F64)[list(MEANS).index(prompt)], w)
    return mean, covariance("full", F64)


def check(network, steps, sampler, w, mean_tolerance, covariance_tolerance):
    times = flow.step_list(steps, 5.0)
    for prompt in PROMPTS:
        found = errors(network, prompt, times, sampler, guided(prompt, w))
        assert found[0] < mean_tolerance, (prompt, found)
        assert found[1] < covariance_tolerance, (prompt, found)


def test_flow_matching_finds_mean_and_covariance(trained):
    method = {"name": "teacher-forcing", "start": "random", "prompt_dropout": 0.1}
    trainer = trained(method, {"student": 0.04}, 600, batch_size=32)
    network, wanted = trainer.networks.eval_network, covariance("full")
    found = network.roots @ network.roots.transpose(1, 2)
    assert (network.means - means())[:2].abs().max() < 0.02
    for row in range(2):
        assert (found[row] - wanted).norm() / wanted.norm() < 0.03
    # dropped prompts are drawn from the mixture of both, whose mean is theirs
    mixture = means()[:2].mean(dim=0)
    assert (network.means[2] - mixture).abs().max() < 0.1


def test_consistency_reaches_the_teachers_guided_path(trained):
    """The student must end where 8 Euler steps of the guided teacher end, which is known exactly
    (and is another Gaussian than the data's: so few steps have an error of their own)."""
    intervals, w = 8, 3.0
    method = {
        "name": "consistency",
        "intervals": intervals,
        "timestep_shift": 1.0,
        "guidance_scale": w,
        # the grid's free ends follow one after the other: a slow target would take 8 times longer
        "target_decay": 0.0,
    }
    sizes = {"nodes": intervals, "timestep_shift": 1.0}
    network = trained(method, {"student": 0.05}, 800, **sizes).networks.eval_network
    grid = flow.step_list(intervals, 1.0)
    for prompt in PROMPTS:
        exact = guided(prompt, w)
        euler = closed_form.generated(
            lambda x, t, exact=exact: closed_form.velocity(x, t, *exact), grid, "ode", 2
        )
        found = errors(network, prompt, [1.0], "sde", euler)
        assert found[0] < 0.02 and found[1] < 0.02, (prompt, found)


def test_dmd_in_one_step(trained):
    """From the teacher's velocity, whose single step is a point, to the Gaussian."""
    method, rates = dmd("dmd", 1, "sde"), {"student": 0.04, "fake_score": 0.08}
    network = trained(method, rates, 300, decay=0.98).networks.eval_network
    check(network, 1, "sde", w=2.0, mean_tolerance=0.02, covariance_tolerance=0.03)


def test_dmd_in_four_steps_with_fresh_noise(trained):
    method, rates = dmd("dmd", 4, "sde"), {"student": 0.03, "fake_score": 0.06}
    trainer = trained(method, rates, 300, decay=0.98, student="transport")
    network = trainer.networks.eval_network
    for steps in (1, 4):
        check(network, steps, "sde", w=2.0, mean_tolerance=0.02, covariance_tolerance=0.03)
    # the fake score has followed: it is the student's Gaussian
    fake = trainer.networks["fake_score"]
    roots = fake.roots @ fake.roots.transpose(1, 2)
    assert ((roots[:2] - covariance("full")).norm(dim=(1, 2)) < 0.05).all()


def test_sc_dmd_straightens_the_flow(trained):
    """Velocity form, along the ODE: the optimum of both terms is the straight flow.

    Distribution matching alone only fixes mean and covariance of all exit steps together, since the
    fake score is one Gaussian; the semigroup term makes every exit the same, so that each is exact.
    """
    steps = 3
    term = {"steps": steps, "num_segments": steps}
    term |= {"space": "velocity", "time_weight": "none", "weight": 0.2}
    rates = {"student": 0.015, "fake_score": 0.03}
    network = trained(dmd("sc-dmd", steps, "ode", term), rates, 500).networks.eval_network
    times = flow.step_list(steps, 5.0)
    for prompt in PROMPTS:
        for exit_step in range(steps):
            found = errors(network, prompt, times[: exit_step + 1], "ode", guided(prompt, 2.0))
            assert found[0] < 0.04 and found[1] < 0.04, (prompt, exit_step, found)


def test_sc_dmd_as_published(trained):
    """Latent form, 8 steps, fresh noise, weight 0.2: its bias on this Gaussian is 3 percent."""
    term = {"steps": 8, "space": "latent", "time_weight": "one_minus_t", "weight": 0.2}
    rates, method = {"student": 0.04, "fake_score": 0.08}, dmd("sc-dmd", 8, "sde", term)
    network = trained(method, rates, 300, decay=0.98, student="transport").networks.eval_network
    check(network, 8, "sde", 2.0, mean_tolerance=0.02, covariance_tolerance=0.05)


@pytest.mark.parametrize("sampler", ["sde", "ode"])
def test_generated_videos_have_the_computed_moments(sampler):
    """The closed form of the rollout above against samples of the real one."""
    backbone = GaussianBackbone(GaussianConfig(), None)
    network, count = backbone.network("student"), 256
    sampling = SamplingConfig(steps=4, sampler=sampler, guidance_scale=2.0)
    made = generate(network, backbone, ["left"] * count, KeyedRNG(0, rows=range(count)), sampling)
    rows = points(made).flatten(0, 1).double()
    mean, spread = closed_form.generated(
        lambda x, t: closed_form.velocity(x, t, *guided("left", 2.0)),
        flow.step_list(4, 5.0),
        sampler,
        dimensions=2,
    )
    torch.testing.assert_close(rows.mean(dim=0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(rows.T.cov(), spread, rtol=0, atol=0.02)
