"""The losses of distribution matching distillation. Pure functions of `[B, C, F, H, W]` tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from salt_zoo.core import flow


def distribution_matching_gradient(x: Tensor, real_x0: Tensor, fake_x0: Tensor) -> Tensor:
    """The direction in which a student's videos are pushed (DMD, arXiv 2311.18828, eq. 7 with the
    weight of eq. 8, as the code of CausVid and Self Forcing numbers them; DMD2, arXiv 2405.14867,
    eq. 2; CausVid, arXiv 2412.07772, eq. 4).

    `(fake - real) / mean|x - real|`, the mean per video; entries that are not finite become 0.

    Args:
        x: the student's videos.
        real_x0, fake_x0: clean estimates of the noised `x` by the real and by the fake score.
    """
    scale = (x - real_x0).abs().mean(dim=tuple(range(1, x.ndim)), keepdim=True)
    return torch.nan_to_num((fake_x0 - real_x0) / scale, nan=0.0, posinf=0.0, neginf=0.0)


def distribution_matching_loss(x: Tensor, gradient: Tensor, mask: Tensor | None = None) -> Tensor:
    """A loss whose gradient in `x` is `gradient / x.numel()`: `0.5 * mean((x - sg(x - g))**2)`, as
    in the code of Self Forcing.

    `mask` (bool, shaped like `x`) keeps only the entries that are true, and the mean is over those.
    """
    squared = (x - (x - gradient).detach()).square()
    return 0.5 * (squared if mask is None else squared[mask]).mean()


def fake_score_loss(v: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    """Flow matching of the fake score on the student's videos: `mean((v - (noise - x0))**2)`.

    arXiv 2210.02747, eq. 23 (sigma_min = 0, time reversed), in place of the denoising loss of DMD2
    (arXiv 2405.14867, section 4.6) and CausVid (arXiv 2412.07772, Algorithm 1, line 14).
    """
    return (v - flow.velocity(x0, noise)).square().mean()
