"""The arithmetic, the losses and the defect against closed forms, in float64."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.guidance import Guided
from salt_zoo.core.networks.blocks import Blocks, RolloutPath
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.evaluation.videos import Videos
from salt_zoo_dmd.defect import SemigroupDefect, SemigroupDefectConfig
from salt_zoo_dmd.losses import distribution_matching_gradient
from salt_zoo_dmd.objectives import DistributionMatching, DistributionMatchingConfig
from salt_zoo_dmd.semigroup import local_defect, semigroup_loss
from tests.gaussian import closed_form
from tests.gaussian.networks import GaussianNetwork, points, videos
from tests.gaussian.plugin import GaussianBackbone, GaussianConfig, covariance, means

F64 = torch.float64
MEAN = means(F64)[0]
BOTH = pytest.mark.parametrize("name", ["diagonal", "full"])


def some_points(count: int = 50, key: str = "points") -> torch.Tensor:
    return KeyedRNG(0, rows=range(count)).randn((2,), key, dtype=F64)


@BOTH
def test_velocity_is_the_score_in_other_units(name):
    x, t, sigma = some_points(), 0.7, covariance(name, F64)
    v = closed_form.velocity(x, t, MEAN, sigma)
    x0 = flow.x0_from_velocity(x, v, t)
    tweedie = (x + t**2 * closed_form.score(x, t, MEAN, sigma)) / (1 - t)
    torch.testing.assert_close(x0, tweedie, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flow.add_noise(x0, flow.noise_from_velocity(x, v, t), t), x)


@BOTH
@pytest.mark.parametrize("t", [0.02, 0.3, 0.8333, 1.0])
def test_exact_velocity_minimises_flow_matching(name, t):
    """The expected loss of an affine velocity is a quadratic form, its gradient there is 0."""
    sigma, eye = covariance(name, F64), torch.eye(2, dtype=F64)
    matrix, shift = closed_form.affine(
        lambda x: closed_form.velocity(x, t, MEAN, sigma), dimensions=2, dtype=F64
    )

    def expected_loss(matrix, shift):
        on_data, on_noise = (1 - t) * matrix + eye, t * matrix - eye
        spread = (on_data @ sigma @ on_data.T).trace() + on_noise.square().sum()
        return spread + (on_data @ MEAN + shift).square().sum()

    matrix, shift = matrix.requires_grad_(), shift.requires_grad_()
    least = expected_loss(matrix, shift)
    for gradient in torch.autograd.grad(least, [matrix, shift]):
        assert gradient.abs().max() < 1e-12
    for direction in some_points(20, "directions").view(10, 2, 2):
        assert expected_loss(matrix + 0.01 * direction, shift + 0.01 * direction[0]) > least


@BOTH
def test_the_exact_flow_map_composes_and_follows_the_velocity(name):
    x, sigma = some_points(), covariance(name, F64)
    start, middle, end = 0.97, 0.75, 0.0
    there = closed_form.flow_map(x, start, middle, MEAN, sigma)
    direct = closed_form.flow_map(x, start, end, MEAN, sigma)
    defect = closed_form.flow_map(there, middle, end, MEAN, sigma) - direct
    assert defect.abs().max() < 1e-12

    step = 1e-5  # a central difference along the path
    after = closed_form.flow_map(x, start, start - step, MEAN, sigma)
    before = closed_form.flow_map(x, start, start + step, MEAN, sigma)
    v = closed_form.velocity(x, start, MEAN, sigma)
    torch.testing.assert_close((before - after) / (2 * step), v, rtol=1e-7, atol=1e-7)


def _straight(x, t):
    return closed_form.straight_velocity(x, t, closed_form.root(covariance("full", F64)), MEAN)


def _point_mass(x, t):
    return closed_form.velocity(x, t, MEAN, torch.zeros(2, 2, dtype=F64))


@pytest.mark.parametrize("velocity", [_straight, _point_mass])
@pytest.mark.parametrize(("start", "middle", "end"), [(1.0, 0.9, 0.8), (0.8, 0.4, 0.0)])
def test_defect_is_zero_where_a_velocity_is_an_exact_flow_map(velocity, start, middle, end):
    """The defect takes one velocity for jumps of every length, so that it is the exact flow map
    only of a straight flow: the optimal transport to a Gaussian, or any flow to one point."""
    x = some_points()
    v = velocity(x, start)
    v_middle = velocity(flow.euler_step(x, v, start, middle), middle)
    assert local_defect(v, v_middle, start, middle, end).max() < 1e-12
    for space in ("latent", "velocity"):
        options = {"space": space, "time_weight": "none"}
        assert semigroup_loss(v, v_middle, start, middle, end, x_start=x, **options) < 1e-24


def test_straight_flow_reaches_the_gaussian_at_any_number_of_steps():
    for steps in (1, 2, 8):
        mean, found = closed_form.generated(_straight, flow.step_list(steps, 5.0), "ode", 2)
        torch.testing.assert_close(mean, MEAN)
        torch.testing.assert_close(found, covariance("full", F64))


def test_defect_of_a_curved_flow_is_its_closed_form():
    x, sigma, (start, middle, end) = some_points(), covariance("full", F64), (0.9, 0.6, 0.2)

    def velocity(x, t):
        return closed_form.velocity(x, t, MEAN, sigma)

    v = velocity(x, start)
    x_middle = flow.euler_step(x, v, start, middle)
    long = flow.euler_step(x, v, start, end)
    short = flow.euler_step(x_middle, velocity(x_middle, middle), middle, end)
    wanted = (long - short).norm(dim=1) / (long - x).norm(dim=1)
    found = local_defect(v, velocity(x_middle, middle), start, middle, end)
    torch.testing.assert_close(found, wanted)
    assert found.min() > 0.01


class StraightNetwork(torch.nn.Module):
    def forward(self, x, t, condition, memory=None):
        return videos(_straight(points(x).double(), float(t[0])), x).to(x.dtype)


@pytest.mark.parametrize("sampler", ["ode", "sde"])
def test_the_metric_of_a_straight_flow_is_zero(sampler):
    backbone = GaussianBackbone(GaussianConfig(), None)
    metric = SemigroupDefect(SemigroupDefectConfig(sampler=sampler), None)

    def measured(network):
        rng = KeyedRNG(0, rows=range(4))
        made = Videos(torch.zeros(4), ["left"] * 4, rng, None, backbone, network)
        return metric.measure(made)

    assert measured(StraightNetwork()).max() < 1e-5
    assert measured(backbone.network("teacher")).min() > 1e-3


@BOTH
def test_guidance_of_two_gaussians_is_a_gaussian(name):
    """With equal covariances the guided velocity is that of the extrapolated mean."""
    backbone, w = GaussianBackbone(GaussianConfig(covariance=name), None), 3.0
    network = backbone.network("teacher").double()
    x = KeyedRNG(0, rows=range(3)).randn(backbone.latent_shape, "x", dtype=F64)
    t = torch.tensor([0.2, 0.7, 1.0], dtype=F64)
    guided = Guided(network, backbone.encode_prompts([""] * 3), w)
    found = guided(x, t, backbone.encode_prompts(["right"] * 3))
    mean = torch.lerp(means(F64)[2], means(F64)[1], w)
    wanted = closed_form.velocity(points(x), t[:, None], mean, covariance(name, F64))
    torch.testing.assert_close(points(found), wanted, rtol=1e-6, atol=1e-6)  # float32 parameters


def test_distribution_matching_gradient_is_the_score_difference():
    """`(fake x0 - real x0) * (1 - t) / t^2` is the difference of the scores, by Tweedie."""
    x, t = some_points(), 0.6
    real, fake = (MEAN, covariance("full", F64)), (-MEAN, covariance("diagonal", F64))
    noisy = flow.add_noise(x, some_points(key="noise"), t)
    real_x0, fake_x0 = (
        flow.x0_from_velocity(noisy, closed_form.velocity(noisy, t, *which), t)
        for which in (real, fake)
    )
    found = distribution_matching_gradient(x, real_x0, fake_x0)
    scores = closed_form.score(noisy, t, *fake) - closed_form.score(noisy, t, *real)
    scale = (x - real_x0).abs().mean(dim=1, keepdim=True)
    torch.testing.assert_close(found, t**2 / (1 - t) * scores / scale)


def test_the_objective_pushes_along_the_guided_score_difference():
    backbone, w = GaussianBackbone(GaussianConfig(), None), 4.0
    fake = GaussianNetwork(-means(), covariance("diagonal")).requires_grad_(False)
    rng = KeyedRNG(0, rows=range(3))
    condition = backbone.encode_prompts(["left"] * 3)
    turn = TrainStep(
        role="student",
        index=0,
        networks={"teacher": backbone.network("teacher"), "fake_score": fake},
        batch=Batch(["left"] * 3, condition, backbone.encode_prompts([""] * 3), None),
        rng=rng,
        blocks=Blocks(),
        latent_shape=backbone.latent_shape,
        backward=lambda loss: None,
    )
    video = rng.randn(backbone.latent_shape, "video").requires_grad_()
    objective = DistributionMatching(DistributionMatchingConfig(guidance_scale=w), None)
    objective.on_video(video, RolloutPath([1.0], 0), turn).backward()

    t = flow.training_times(rng.rand("score time"), 5.0, 0.02, 0.98).double()[:, None]
    x, noise = points(video.detach()), points(rng.randn(backbone.latent_shape, "score noise"))
    noisy = ((1 - t[..., None]) * x + t[..., None] * noise).double()
    mean = torch.lerp(means(F64)[2], means(F64)[0], w)
    real = noisy - t[..., None] * closed_form.velocity(noisy, t, mean, covariance("full", F64))
    push = closed_form.score(noisy, t, -means(F64)[0], covariance("diagonal", F64))
    push = push - closed_form.score(noisy, t, mean, covariance("full", F64))
    scale = (x - real).abs().mean(dim=(1, 2), keepdim=True)
    wanted = (t**2 / (1 - t))[..., None] * push / scale / video.numel()
    assert video.grad is not None
    torch.testing.assert_close(points(video.grad).double(), wanted, rtol=1e-4, atol=1e-8)
