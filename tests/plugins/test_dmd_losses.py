"""The losses of DMD and SC-DMD as pure functions."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo_dmd.losses import (
    distribution_matching_gradient,
    distribution_matching_loss,
    fake_score_loss,
)
from salt_zoo_dmd.objectives import ScoreTimes
from salt_zoo_dmd.semigroup import anchors, choices, local_defect, semigroup_loss

SHAPE = (2, 3, 4, 4)
RNG = KeyedRNG(0, rows=range(3))


def video(key):
    return RNG.randn(SHAPE, key, dtype=torch.float64)


def test_gradient_is_scaled_video_by_video():
    x, real, fake = video("x"), video("real"), video("fake")
    found = distribution_matching_gradient(x, real, fake)
    for row in range(3):
        scale = (x[row] - real[row]).abs().mean()
        torch.testing.assert_close(found[row], (fake[row] - real[row]) / scale)


def test_gradient_is_zero_where_it_is_undefined():
    x = video("x")
    found = distribution_matching_gradient(x, x, x)  # 0 / 0
    assert torch.equal(found, torch.zeros_like(x))
    assert torch.equal(distribution_matching_gradient(x, x, x + 1), torch.zeros_like(x))


def test_loss_has_the_given_gradient():
    x, g = video("x").requires_grad_(), video("g")
    loss = distribution_matching_loss(x, g)
    loss.backward()
    torch.testing.assert_close(x.grad, g / x.numel())
    torch.testing.assert_close(loss.detach(), 0.5 * g.square().mean())


def test_masked_loss_is_the_mean_over_what_is_kept():
    x, g = video("x").requires_grad_(), video("g")
    mask = torch.zeros_like(g, dtype=torch.bool)
    mask[:, :, 1:] = True
    distribution_matching_loss(x, g, mask).backward()
    torch.testing.assert_close(x.grad, torch.where(mask, g / mask.sum(), 0.0))


def test_fake_score_loss_is_least_at_the_flow_target():
    x0, noise = video("x"), video("noise")
    assert fake_score_loss(noise - x0, x0, noise) == 0
    torch.testing.assert_close(fake_score_loss(noise - x0 + 2, x0, noise).item(), 4.0)


def test_score_times_are_shifted_then_clamped():
    u = torch.tensor([0.0, 0.5, 0.999999])
    torch.testing.assert_close(ScoreTimes().draw(u), torch.tensor([0.02, 5 / 6, 0.98]))


def semigroup(v1, v2, **options):
    return semigroup_loss(v1, v2, 0.8, 0.6, 0.1, **options)


@pytest.mark.parametrize(("time_weight", "factor"), [("one_minus_t", 0.2), ("none", 1.0)])
def test_semigroup_loss_is_its_formula(time_weight, factor):
    v1, v2, x = video("v1").requires_grad_(), video("v2"), video("x")
    middle = flow.euler_step(x, v1, 0.8, 0.6)
    target = flow.euler_step(middle, v2, 0.6, 0.1).detach()
    wanted = factor * (flow.euler_step(x, v1, 0.8, 0.1) - target).square().mean()
    options = {"time_weight": time_weight}
    torch.testing.assert_close(semigroup(v1, v2, x_start=x, **options), wanted)
    torch.testing.assert_close(semigroup(v1, v2, **options), wanted)  # x cancels
    by_velocity = semigroup(v1, v2, space="velocity", **options)
    torch.testing.assert_close(by_velocity, wanted / 0.7**2)


def test_semigroup_gradient_flows_through_the_first_velocity_alone():
    """d/dv1 of the square with target and middle point held: 2 * weight * jump * error / count."""
    v1, v2 = video("v1").requires_grad_(), video("v2").requires_grad_()
    loss = semigroup(v1, v2)
    found, none = torch.autograd.grad(loss, [v1, v2], allow_unused=True)
    error = -0.5 * (v1 - v2).detach()  # the two landings differ over the second part only
    torch.testing.assert_close(found, -0.7 * 2 * 0.2 * error / v1.numel())
    assert none is None


def test_semigroup_mask_divides_by_the_full_count():
    v1, v2, mask = video("v1"), video("v2"), torch.ones(3, *SHAPE, dtype=torch.float64)
    mask[:, :, :1] = 0
    kept = semigroup(v1[:, :, 1:], v2[:, :, 1:])
    torch.testing.assert_close(semigroup(v1, v2, mask=mask), kept * 2 / 3)


def test_semigroup_at_pure_noise_weighs_nothing_as_published():
    v1, v2 = video("v1"), video("v2")
    assert semigroup_loss(v1, v2, 1.0, 0.9, 0.5) == 0
    assert semigroup_loss(v1, v2, 1.0, 0.9, 0.5, time_weight="none") > 0


def test_anchors_are_the_starts_of_the_segments():
    eight = flow.step_list(8, 5.0)
    assert anchors(eight, 4) == [*eight[::2], 0.0]
    assert anchors(eight, 1) == [1.0, 0.0]
    assert anchors(eight[:2], 4) == [eight[0], eight[0], eight[1], eight[1], 0.0]
    with pytest.raises(ValueError, match="at least 1 segment"):
        anchors(eight, 0)


@pytest.mark.parametrize("segments", [1, 2, 4, 8])
@pytest.mark.parametrize("steps", [2, 4, 8])
def test_choices_keep_their_order(steps, segments):
    times = flow.step_list(steps, 5.0)
    for exit_step in range(steps - 1):
        ends = choices(times, exit_step, segments)
        assert 1 <= len(ends) <= 2
        for end, middles in ends:
            assert end < times[exit_step + 1]
            assert times[exit_step + 1] in middles  # so that a middle is never the end itself
            assert all(end < middle < times[exit_step] for middle in middles)
    assert choices(times, steps - 1, segments) == []


def test_local_defect_does_not_depend_on_scale():
    v1, v2 = video("v1"), video("v2")
    found = local_defect(v1, v2, 0.9, 0.5, 0.2)
    assert found.shape == (3,)
    torch.testing.assert_close(local_defect(7 * v1, 7 * v2, 0.9, 0.5, 0.2), found)
    assert local_defect(v1, v1, 0.9, 0.5, 0.2).max() == 0
    assert torch.isfinite(local_defect(0 * v1, 0 * v1, 0.9, 0.5, 0.2)).all()
