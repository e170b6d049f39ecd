"""The Frechet distance between two Gaussians fitted to features (arXiv 1706.08500, eq. 6, as a
third party's code numbers it)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Mean `[D]`, covariance `[D, D]` and its symmetric root, in float64."""

    mean: Tensor
    covariance: Tensor
    root: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Gaussian:
        """Fitted to features `[N, D]`, N >= 2."""
        rows = rows.double()
        return cls.with_moments(
            rows.mean(dim=0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])
        )

    @classmethod
    def with_moments(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        values, vectors = torch.linalg.eigh(covariance)
        return cls(mean, covariance, (vectors * values.clamp(min=0).sqrt()) @ vectors.T)


def frechet_distance(real: Gaussian, other: Gaussian) -> float:
    """`|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))` (eq. 6); biased upwards for few rows."""
    # symmetric, with the eigenvalues of S1 S2
    product = real.root @ other.covariance @ real.root
    roots = torch.linalg.eigvalsh(product).clamp(min=0).sqrt()
    trace = torch.trace(real.covariance) + torch.trace(other.covariance) - 2 * roots.sum()
    return float((real.mean - other.mean).square().sum() + trace)


def frechet_distances(real: Gaussian, rows: Tensor) -> Tensor:
    """`frechet_distance` to the Gaussian of each of R sets of features `[R, N, D]`, at once."""
    rows = rows.double()
    mean = rows.mean(dim=1)
    centred = rows - mean[:, None]
    covariance = centred.mT @ centred / (rows.shape[1] - 1)
    roots = torch.linalg.eigvalsh(real.root @ covariance @ real.root).clamp(min=0).sqrt()
    traces = covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    trace = torch.trace(real.covariance) + traces - 2 * roots.sum(dim=-1)
    return (real.mean - mean).square().sum(dim=-1) + trace
