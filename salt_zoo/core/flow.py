"""Rectified-flow arithmetic: times, shifts, conversions and steps. Pure functions only.

`t` is in [0, 1] and `t = 1` is pure noise: `x_t = (1 - t) * x0 + t * noise`, with the velocity
`v = noise - x0`. A time is a float, a tensor `[B]` (one per video) or `[B, F]` (one per frame);
videos are `[B, C, F, H, W]`.

Flow matching (arXiv 2210.02747) and rectified flow (arXiv 2209.03003) count time from noise to
data, SD3 (arXiv 2403.03206, section 3) as it is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

Time = float | Tensor
#: The same kind of time goes in and comes out.
AnyTime = TypeVar("AnyTime", float, Tensor)


def at(t: Time, x: Tensor) -> Time:
    """`t` shaped to multiply `x`: `[B]` becomes `[B, 1, 1, 1, 1]`, `[B, F]` `[B, 1, F, 1, 1]`."""
    if not isinstance(t, Tensor) or t.ndim == 0:
        return t
    t = t.to(x.dtype)
    if t.ndim == 1:
        return t.view(-1, *[1] * (x.ndim - 1))
    if t.ndim == 2 and x.ndim == 5:
        return t[:, None, :, None, None]
    raise ValueError(f"a time must be a number, [B] or [B, F], not {tuple(t.shape)}")


def shift_time(t: AnyTime, shift: float) -> AnyTime:
    """Timestep shift `s*t / (1 + (s - 1)*t)`; keeps 0 and 1, moves the rest to noise; Wan: 5.

    SD3, arXiv 2403.03206, section 5.3.2, eq. 23: `s = sqrt(m / n)` for m pixels in place of n.
    """
    return shift * t / (1 + (shift - 1) * t)


def unshift_time(t: AnyTime, shift: float) -> AnyTime:
    """The inverse of `shift_time`."""
    return t / (shift - (shift - 1) * t)


def add_noise(x0: Tensor, noise: Tensor, t: Time) -> Tensor:
    """`x_t = (1 - t) * x0 + t * noise` (arXiv 2210.02747, eq. 22, with sigma_min = 0 and time
    reversed)."""
    t = at(t, x0)
    return (1 - t) * x0 + t * noise


def velocity(x0: Tensor, noise: Tensor) -> Tensor:
    """The flow-matching target `noise - x0`, the same at every time (arXiv 2210.02747, eq. 23, with
    sigma_min = 0 and time reversed; arXiv 2209.03003, eq. 1, as a third party's code numbers it).
    """
    return noise - x0


def x0_from_velocity(x: Tensor, v: Tensor, t: Time) -> Tensor:
    """The clean video that a velocity at time `t` points at: `x - t * v` (the `G` of
    Causal-Forcing++, arXiv 2605.15141, eq. 4, counted in its LaTeX source)."""
    return x - at(t, x) * v


def noise_from_velocity(x: Tensor, v: Tensor, t: Time) -> Tensor:
    """The noise that a velocity at time `t` comes from: `x + (1 - t) * v`."""
    return x + (1 - at(t, x)) * v


def velocity_from_x0(x: Tensor, x0: Tensor, t: Time) -> Tensor:
    """The inverse of `x0_from_velocity`; undefined at `t = 0`."""
    return (x - x0) / at(t, x)


def euler_step(x: Tensor, v: Tensor, t: Time, t_next: Time) -> Tensor:
    """One Euler step of the flow from `t` to `t_next`: `x - (t - t_next) * v` (the one-step solver
    of arXiv 2303.01469, eq. 6, with the update function `v`)."""
    return x - (at(t, x) - at(t_next, x)) * v


def guide(v_uncond: Tensor, v_cond: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance `v_uncond + w * (v_cond - v_uncond)`; w = 1 is conditional only.

    This w is that of Imagen (arXiv 2205.11487, eq. 2, as the pipelines of diffusers cite it). The
    paper of guidance writes `(1 + s) * cond - s * uncond`, which is w = 1 + s (arXiv 2207.12598,
    eq. 6, as third parties number it), and so does Self Forcing, as `cond + s * (cond - uncond)`:
    its 3.0 is w = 4 here (arXiv 2506.08009).
    """
    return v_uncond + guidance_scale * (v_cond - v_uncond)


def step_list(steps: int, shift: float) -> list[float]:
    """The times at which a `steps`-step student is evaluated: `[1, 1 - 1/n, ..., 1/n]`, shifted.

    Training and evaluation share this list: a method whose training ends or joins steps at times of
    its own (phases, segments) must take them from here, with the shift of the evaluation. A shift s
    turns t into `s t / (1 + (s - 1) t)`, so that 4 steps with shift 5 are

        step          1       2       3       4    (end)
        unshifted     1       0.75    0.5     0.25  0
        shifted       1       0.9375  0.8333  0.625 0

    >>> step_list(4, 5)
    [1.0, 0.9375, 0.8333333333333334, 0.625]
    """
    if steps < 1:
        raise ValueError(f"a step list has at least 1 step, not {steps}")
    return [shift_time((steps - k) / steps, shift) for k in range(steps)]


def training_times(u: Tensor, shift: float, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform draws `u` in [0, 1) as times of training: shifted, then clamped to [low, high]."""
    return torch.clamp(shift_time(u, shift), low, high)


def published_sigmas(shift: float, count: int = 1000) -> Tensor:
    """The grid that the released Wan training codes look every sigma up in: `[count]`, float32.

    It is a shifted uniform grid whose last point (0) is dropped, so that it ends at 0.00498 for
    shift 5 and never reaches 0. Only parity with released code needs it; everything else here
    uses continuous times.
    """
    return shift_time(torch.linspace(1.0, 0.0, count + 1)[:-1], shift)


def nearest_sigma(t: Tensor, sigmas: Tensor) -> Tensor:
    """The entry of a published grid nearest to each time, the first one on ties."""
    distance = (1000 * sigmas - 1000 * t.to(sigmas.dtype).unsqueeze(-1)).abs()
    return sigmas[distance.argmin(dim=-1)]


def check_times(times: Sequence[float]) -> list[float]:
    """`times` as floats, refused unless strictly falling and inside (0, 1]."""
    times = [float(t) for t in times]
    falling = all(a > b for a, b in pairwise(times))
    if not times or not falling or not (times[-1] > 0 and times[0] <= 1):
        raise ValueError(f"step times must fall strictly within (0, 1], not {times}")
    return times
