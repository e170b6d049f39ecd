"""The arithmetic of rectified flow, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo.core import flow

unit = st.floats(0, 1)
positive = st.floats(1e-3, 1)
shifts = st.floats(0.1, 20)
seeds = st.integers(0, 2**31)


def videos(seed: int, count: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 1, 3, 2, 2)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@given(seed=seeds, t=positive)
def test_conversions_are_inverse(seed, t):
    x0, noise = videos(seed)
    x, v = flow.add_noise(x0, noise, t), flow.velocity(x0, noise)
    close(flow.x0_from_velocity(x, v, t), x0)
    close(flow.noise_from_velocity(x, v, t), noise)
    close(flow.velocity_from_x0(x, x0, t), v)
    close(flow.add_noise(flow.x0_from_velocity(x, v, t), flow.noise_from_velocity(x, v, t), t), x)


@given(seed=seeds, t=unit, t_next=unit)
def test_euler_is_exact_on_straight_flows(seed, t, t_next):
    x0, noise = videos(seed)
    x = flow.add_noise(x0, noise, t)
    close(
        flow.euler_step(x, flow.velocity(x0, noise), t, t_next), flow.add_noise(x0, noise, t_next)
    )


@given(seed=seeds, t=unit, middle=unit, end=unit)
def test_euler_steps_of_one_velocity_compose(seed, t, middle, end):
    x, v = videos(seed)
    via = flow.euler_step(flow.euler_step(x, v, t, middle), v, middle, end)
    close(via, flow.euler_step(x, v, t, end))


@given(t=unit, shift=shifts)
def test_shift_and_unshift_are_inverse(t, shift):
    assert flow.unshift_time(flow.shift_time(t, shift), shift) == pytest.approx(t, abs=1e-9)
    assert flow.shift_time(flow.unshift_time(t, shift), shift) == pytest.approx(t, abs=1e-9)


@given(t=unit, other=unit, shift=shifts)
def test_shift_keeps_order_and_ends(t, other, shift):
    assert flow.shift_time(0.0, shift) == 0 and flow.shift_time(1.0, shift) == pytest.approx(1)
    shifted, shifted_other = flow.shift_time(t, shift), flow.shift_time(other, shift)
    assert -1e-12 <= shifted <= 1 + 1e-12
    if t < other:
        assert shifted <= shifted_other
    if shift >= 1:
        assert shifted >= t - 1e-12


@given(shift=shifts)
def test_short_step_lists_lie_within_the_eight(shift):
    eight = flow.step_list(8, shift)
    assert flow.step_list(4, shift) == eight[::2]
    assert flow.step_list(2, shift) == eight[::4]
    assert flow.step_list(1, shift) == eight[:1]


@given(steps=st.integers(1, 60), shift=shifts)
def test_step_lists_fall_from_pure_noise(steps, shift):
    times = flow.step_list(steps, shift)
    assert len(times) == steps
    assert times[0] == pytest.approx(1) and times[-1] > 0
    assert all(a > b for a, b in itertools.pairwise(times))


def test_the_published_step_list():
    assert flow.step_list(4, 5) == pytest.approx([1.0, 15 / 16, 5 / 6, 5 / 8])


def test_a_step_list_has_a_step():
    with pytest.raises(ValueError, match="at least 1 step"):
        flow.step_list(0, 5)


@given(seed=seeds)
def test_times_per_video_and_per_frame_are_times(seed):
    x0, noise = videos(seed)
    generator = torch.Generator().manual_seed(seed)
    per_frame = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    mixed = flow.add_noise(x0, noise, per_frame)
    for row in range(2):
        for frame in range(3):
            alone = flow.add_noise(x0, noise, float(per_frame[row, frame]))
            close(mixed[row, :, frame], alone[row, :, frame])
    per_video = per_frame[:, 0]
    close(
        flow.add_noise(x0, noise, per_video),
        flow.add_noise(x0, noise, per_video[:, None].expand(2, 3)),
    )


def test_a_time_of_another_shape_is_refused():
    x0, noise = videos(0)
    with pytest.raises(ValueError, match=r"\[B\] or \[B, F\]"):
        flow.add_noise(x0, noise, torch.zeros(2, 3, 1))


@given(seed=seeds, weight=st.floats(-4, 8))
def test_guidance_is_standard_and_linear(seed, weight):
    without, with_prompt = videos(seed)
    close(flow.guide(without, with_prompt, 1.0), with_prompt)
    close(flow.guide(without, with_prompt, 0.0), without)
    # Self Forcing's convention: cond + s * (cond - uncond) is w = s + 1
    close(
        flow.guide(without, with_prompt, weight),
        with_prompt + (weight - 1) * (with_prompt - without),
    )


@given(shift=shifts, low=st.floats(0, 0.4), high=st.floats(0.6, 1))
def test_training_times_are_shifted_then_clamped(shift, low, high):
    u = torch.linspace(0, 1, 50, dtype=torch.float64)
    t = flow.training_times(u, shift, low, high)
    assert t.min() >= low and t.max() <= high
    inside = (t > low) & (t < high)
    close(t[inside], flow.shift_time(u, shift)[inside])


def test_published_sigmas():
    sigmas = flow.published_sigmas(5.0)
    assert sigmas.shape == (1000,) and sigmas[0] == 1
    assert sigmas[-1] == pytest.approx(0.00498, abs=1e-5)
    t = torch.tensor([0.5, 1.0, 0.0])
    found = flow.nearest_sigma(t, sigmas)
    assert found[1:].tolist() == [1.0, sigmas[-1].item()]
    assert (found[0] - 0.5).abs() <= (sigmas - 0.5).abs().min() + 1e-7


@pytest.mark.parametrize("times", [[], [0.5, 0.5], [0.2, 0.4], [1.5, 0.5], [0.5, 0.0], [-0.1]])
def test_times_that_are_no_step_list(times):
    with pytest.raises(ValueError, match="fall strictly"):
        flow.check_times(times)
