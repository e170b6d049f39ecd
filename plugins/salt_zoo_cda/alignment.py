"""The alignment losses of cache-distribution-aware training (Salt, arXiv 2604.03118).

They pull what a student makes towards a reference, the same network's path of more steps. All but
`x0` compare hidden states of a frozen network: tokens `[B, F*S, D]` in the order of the frames,
S tokens for each of F frames. Gradients flow into the student only. Half precision is computed in
float32; float64 stays.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from einops import rearrange, reduce
from torch import Tensor

Kernel = Literal[
    "linear", "rbf", "laplace", "energy", "temporal_rbf", "temporal_laplace", "temporal_energy"
]

#: Where `linear` turns from a squared into an absolute difference of channel means.
_LINEAR_KNEE = 1e-3
#: A token shorter than this has no direction.
_ZERO_LENGTH = 1e-12


def trd(student: Tensor, reference: Tensor, frames: int, margin: float = 0.1) -> Tensor:
    """Token relation distillation: tokens of a frame shall be related as the reference's are.

    `mean(relu(|G_student - G_reference| - margin))` over all pairs of tokens of a frame, all frames
    and all videos, `G` the cosine Gram matrix of a frame's tokens. In `[0, 2 - margin]`; 0 where
    both are equal. A token of length 0 is orthogonal to every token and gets no gradient.

    Args:
        student, reference: features, `[B, frames * S, D]`.
        frames: how many frames the tokens belong to.
        margin: differences of a cosine that cost nothing, at least 0.

    Raises:
        ValueError: the shapes are not alike or not those of whole frames.

    Source: arXiv 2604.03118 and its released code: per frame the S x S relations of tokens of unit
    length, and an l1 difference with a margin.
    """
    student, reference = _by_frame(student, reference, frames)
    difference = _cosines(student) - _cosines(reference)
    return (difference.abs() - margin).relu().mean()


def mmd(
    student: Tensor,
    reference: Tensor,
    frames: int,
    kernel: Kernel = "linear",
    sigma: float = 100.0,
) -> Tensor:
    """How far two sets of tokens are from one distribution, video by video, then the mean.

    - `linear`: `sqrt(d^2 + c^2) - c`, `d` the difference of the token means, mean over channels,
      c = 1e-3. At least 0, and 0 where the means are equal.
    - `rbf`, `laplace`: squared maximum mean discrepancy with the kernels
      `exp(-|x - y|^2 / (2 sigma^2))` and `exp(-|x - y| / sigma)`, in `[-2, 2]`.
    - `energy`: energy distance `2 E|x - y| - E|x - x'| - E|y - y'|`.
    - `temporal_KERNEL`: of the means of the frames instead of the tokens. (It would not change
      `linear`.)

    All but `linear` are the unbiased estimators: pairs of a token with itself are left out within
    a set and kept between the sets. So they may be negative, and are *not* 0 but below it where
    both sets are equal; their expectation is 0 for two samples of one distribution. The gradient is
    finite everywhere; a pair of coinciding tokens contributes 0 to it.

    Memory and time grow with the square of the number of tokens, except for `linear`.

    Args:
        student, reference: features, `[B, frames * S, D]`.
        frames: how many frames the tokens belong to.
        sigma: width of `rbf` and `laplace`, above 0.

    Raises:
        ValueError: the shapes are not alike or not those of whole frames; no such kernel; fewer
            than two tokens (or frames, for `temporal_KERNEL`) where pairs are needed.

    Source: arXiv 2604.03118; for the estimator Gretton et al., JMLR 13 (2012), Lemma 6, eq. 3, as
    other implementations number it: `mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j)
    - 2 mean_{i, j} k(x_i, y_j)`. The energy form of the released code adds `E|y - y'|`, a slip that
    is not repeated here.
    """
    if kernel not in get_args(Kernel):
        raise ValueError(f"no kernel {kernel!r}; known: {', '.join(get_args(Kernel))}")
    x, y = _by_frame(student, reference, frames)
    if kernel == "linear":
        difference = x.mean(dim=(1, 2)) - y.mean(dim=(1, 2))
        # sqrt(d^2 + c^2) - c without its cancellation at small d
        root = (difference.square() + _LINEAR_KNEE**2).sqrt()
        return (difference.square() / (root + _LINEAR_KNEE)).mean()
    # large common offsets, usual in transformers, would cost digits of the distances
    centre = y.mean(dim=(1, 2), keepdim=True)
    x, y = x - centre, y - centre
    if kernel.startswith("temporal_"):
        x, y = (reduce(z, "b f s d -> b f d", "mean") for z in (x, y))
    else:
        x, y = (rearrange(z, "b f s d -> b (f s) d") for z in (x, y))
    if x.shape[1] < 2:
        raise ValueError(f"{kernel} compares pairs and needs at least 2 tokens, not {x.shape[1]}")
    within = _off_diagonal_mean(_similarity(x, x, kernel, sigma)) + _off_diagonal_mean(
        _similarity(y, y, kernel, sigma)
    )
    between = _similarity(x, y, kernel, sigma).mean(dim=(1, 2))
    return (within - 2 * between).mean()


def x0(student: Tensor, reference: Tensor) -> Tensor:
    """Mean squared error of the student's videos to the reference's, of one shape. At least 0.

    Raises:
        ValueError: the shapes are not alike.

    Source: the "drift" loss of Salt's released code (arXiv 2604.03118), weight 0 in its recipes.
    """
    _require_alike(student, reference)
    return (_precise(student) - _precise(reference.detach())).square().mean()


def _by_frame(student: Tensor, reference: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Both as `[B, F, S, D]`, the reference without gradient."""
    _require_alike(student, reference)
    if student.ndim != 3 or frames < 1 or student.shape[1] % frames or not student.numel():
        raise ValueError(
            f"features must be [B, F*S, D] with F = {frames}, not {list(student.shape)}"
        )
    x, y = (
        rearrange(_precise(z), "b (f s) d -> b f s d", f=frames)
        for z in (student, reference.detach())
    )
    return x, y


def _require_alike(student: Tensor, reference: Tensor) -> None:
    if student.shape != reference.shape:
        raise ValueError(
            f"student {list(student.shape)} and reference {list(reference.shape)} differ in shape"
        )


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _cosines(tokens: Tensor) -> Tensor:
    """Cosine Gram matrices `[..., S, S]` of tokens `[..., S, D]`."""
    length = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    # a small bound instead of infinity would give zero tokens gradients of 1 / bound
    directions = tokens / torch.where(length > _ZERO_LENGTH, length, torch.inf)
    return directions @ directions.mT


def _similarity(x: Tensor, y: Tensor, kernel: Kernel, sigma: float) -> Tensor:
    """The kernel less its value at distance 0, `[B, N, M]`; constants cancel from all estimators.

    Without them, kernels that are wide beside the distances keep their digits.
    """
    distance = torch.cdist(x, y)  # unlike that of a square root, its gradient at 0 is 0
    if kernel.endswith("rbf"):
        return torch.expm1(-0.5 * (distance / sigma).square())
    if kernel.endswith("laplace"):
        return torch.expm1(-distance / sigma)
    return -distance


def _off_diagonal_mean(pairs: Tensor) -> Tensor:
    """Mean over `i != j` of `[B, N, N]`: `[B]`."""
    n = pairs.shape[-1]
    diagonal = pairs.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return (pairs.sum(dim=(1, 2)) - diagonal) / (n * (n - 1))
