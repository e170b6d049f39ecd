"""Closed forms for Gaussian data, in the dtype of their arguments.

Data `x0 ~ N(mean, covariance)` with D dimensions; points are `[..., D]` and `t` is a number or
`[...]`. `x_t = (1 - t) * x0 + t * noise` is then `N((1 - t) * mean, C_t)` with
`C_t = (1 - t)^2 * covariance + t^2`, and all of its velocities are affine in `x`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from salt_zoo.core.flow import Time

Affine = tuple[Tensor, Tensor]  # the map x -> matrix @ x + shift


def _column(t: Time, like: Tensor) -> Tensor:
    return torch.as_tensor(t, dtype=like.dtype)[..., None]


def noised_covariance(t: Time, covariance: Tensor) -> Tensor:
    """`C_t`, `[..., D, D]`."""
    t = _column(t, covariance)[..., None]
    return (1 - t) ** 2 * covariance + t**2 * torch.eye(len(covariance), dtype=covariance.dtype)


def velocity(x: Tensor, t: Time, mean: Tensor, covariance: Tensor) -> Tensor:
    """`E[noise - x0 | x_t = x]`."""
    t_, eye = _column(t, x), torch.eye(x.shape[-1], dtype=x.dtype)
    white = -score(x, t, mean, covariance)
    gain = t_[..., None] * eye - (1 - t_)[..., None] * covariance
    return (gain @ white[..., None])[..., 0] - mean


def score(x: Tensor, t: Time, mean: Tensor, covariance: Tensor) -> Tensor:
    """The gradient of the log density of `x_t`."""
    centred = x - (1 - _column(t, x)) * mean
    return -torch.linalg.solve(noised_covariance(t, covariance), centred[..., None])[..., 0]


def root(covariance: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag_embed(values.sqrt()) @ vectors.transpose(-1, -2)


def flow_map(x: Tensor, t: float, s: float, mean: Tensor, covariance: Tensor) -> Tensor:
    """Where the exact flow carries `x` from time `t` to `s`.

    `C_t` and `C_s` commute, so that every eigendirection scales by its own ratio of deviations.
    """
    ratio = root(noised_covariance(s, covariance)) @ torch.linalg.inv(
        root(noised_covariance(t, covariance))
    )
    return (1 - s) * mean + (x - (1 - t) * mean) @ ratio.T


def straight_velocity(x: Tensor, t: float, matrix: Tensor, shift: Tensor) -> Tensor:
    """The flow along straight lines from `z` at t = 1 to `matrix @ z + shift` at t = 0.

    For a positive symmetric `matrix` no two lines cross; `matrix = root(covariance)` and
    `shift = mean` transport noise to the data (it is the optimal transport).
    """
    eye = torch.eye(x.shape[-1], dtype=x.dtype)
    blend = t * eye + (1 - t) * matrix
    start = torch.linalg.solve(blend, (x - (1 - t) * shift)[..., None])[..., 0]
    return start - (start @ matrix.T + shift)


def affine(function: Callable[[Tensor], Tensor], dimensions: int, dtype: torch.dtype) -> Affine:
    """The matrix and the shift of an affine `function` of points `[N, D]`."""
    corners = torch.cat([torch.zeros(1, dimensions), torch.eye(dimensions)]).to(dtype)
    values = function(corners)
    return (values[1:] - values[0]).T, values[0]


def generated(
    velocity_at: Callable[[Tensor, float], Tensor],
    times: Sequence[float],
    sampler: str,
    dimensions: int,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of what an affine velocity generates from noise."""
    mean, covariance = torch.zeros(dimensions, dtype=dtype), torch.eye(dimensions, dtype=dtype)
    for k, t in enumerate(times):
        matrix, shift = affine(lambda x, t=t: velocity_at(x, t), dimensions, dtype)
        last = k + 1 == len(times)
        step = t - times[k + 1] if sampler == "ode" and not last else t
        matrix, shift = torch.eye(dimensions, dtype=dtype) - step * matrix, -step * shift
        mean, covariance = matrix @ mean + shift, matrix @ covariance @ matrix.T
        if sampler == "sde" and not last:
            mean = (1 - times[k + 1]) * mean
            covariance = noised_covariance(times[k + 1], covariance)
    return mean, covariance
