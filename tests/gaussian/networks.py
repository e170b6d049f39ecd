"""Velocity networks that hold the optimum of Gaussian data exactly.

Videos are `[B, D, F, H, W]`: every place of every frame is an independent draw of a D-dimensional
Gaussian, so that one video gives many samples. The condition `which` `[B, P]` is one-hot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.core import flow
from tests.gaussian import closed_form


def points(x: Tensor) -> Tensor:
    """Videos as `[B, places, D]`."""
    return x.flatten(2).transpose(1, 2)


def videos(x: Tensor, like: Tensor) -> Tensor:
    """The inverse of `points`."""
    return x.transpose(1, 2).reshape(like.shape)


class GaussianNetwork(nn.Module):
    """The exact velocity of one Gaussian per condition; its parameters are mean and root.

    Fitting it by flow matching gives the mean and the covariance of the videos.
    """

    def __init__(self, means: Tensor, covariance: Tensor) -> None:
        super().__init__()
        self.means = nn.Parameter(means.clone())
        self.roots = nn.Parameter(closed_form.root(covariance).repeat(len(means), 1, 1))

    def forward(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor], memory: Any = None
    ) -> Tensor:
        which = condition["which"].argmax(dim=1)
        mean, root = self.means[which], self.roots[which]
        covariance = root @ root.transpose(1, 2)
        t = t.to(x.dtype)[:, None, None]
        eye = torch.eye(x.shape[1], dtype=x.dtype)
        noised = (1 - t) ** 2 * covariance + t**2 * eye
        gain = torch.linalg.solve(noised, t * eye - (1 - t) * covariance)  # the two commute
        centred = points(x) - (1 - t) * mean[:, None]
        return videos(centred @ gain - mean[:, None], x)


class AffineNetwork(nn.Module):
    """`v(x, t) = M(t) x + b(t, condition)`, piecewise linear between nodes of the unshifted time.

    Step lists and consistency grids lie on the nodes, where any affine velocity is representable.
    It begins as the exact velocity of the data, as a distilled student begins as its teacher.
    """

    def __init__(self, means: Tensor, covariance: Tensor, nodes: int, shift: float) -> None:
        super().__init__()
        self.nodes, self.shift = nodes, shift
        dimensions = len(covariance)
        matrices, shifts = [], []
        for k in range(nodes + 1):
            t = float(flow.shift_time(k / nodes, shift))
            for mean in means:
                matrix, offset = closed_form.affine(
                    lambda x, t=t, mean=mean: closed_form.velocity(x, t, mean, covariance),
                    dimensions,
                    means.dtype,
                )
                shifts.append(offset)
            matrices.append(matrix)
        self.matrices = nn.Parameter(torch.stack(matrices))
        self.shifts = nn.Parameter(torch.stack(shifts).view(nodes + 1, len(means), dimensions))

    def forward(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor], memory: Any = None
    ) -> Tensor:
        place = flow.unshift_time(t.to(x.dtype), self.shift) * self.nodes
        below = place.floor().clamp(0, self.nodes - 1)
        rest = (place - below)[:, None, None]
        k = below.long()
        which = condition["which"].argmax(dim=1)
        matrix = torch.lerp(self.matrices[k], self.matrices[k + 1], rest)
        offset = torch.lerp(self.shifts[k, which], self.shifts[k + 1, which], rest[..., 0])
        return videos(points(x) @ matrix.transpose(1, 2) + offset[:, None], x)


class TransportNetwork(nn.Module):
    """`v = (x - f(x)) / t` of the map `f` that takes any `x_t` of its own Gaussian to its data.

    Few-step generation with fresh noise ("sde") then gives that Gaussian at every exit step, which
    is what distribution matching alone cannot tell: a Gaussian fake score only sees the mean and
    the covariance of all exits together. Begins as another Gaussian around the right means.
    """

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.means = nn.Parameter(means.clone())
        self.factor = nn.Parameter(0.4 * torch.eye(means.shape[1]))

    def forward(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor], memory: Any = None
    ) -> Tensor:
        mean = self.means[condition["which"].argmax(dim=1)][:, None]
        factor, t = self.factor.tril(), t.to(x.dtype)[:, None, None]
        covariance, eye = factor @ factor.T, torch.eye(x.shape[1], dtype=x.dtype)
        noised = torch.linalg.cholesky((1 - t) ** 2 * covariance + t**2 * eye)
        centred = (points(x) - (1 - t) * mean).transpose(1, 2)
        white = torch.linalg.solve_triangular(noised, centred, upper=False)
        clean = mean + (factor @ white).transpose(1, 2)
        return videos((points(x) - clean) / t, x)
