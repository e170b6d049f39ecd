"""Distances of consistency distillation. Pure functions of `[B, C, F, H, W]` tensors."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

Distance = Literal["squared", "pseudo-huber"]


def distance(x: Tensor, y: Tensor, kind: Distance) -> Tensor:
    """How far apart clean estimates are, averaged over videos: the `d` of consistency distillation
    (arXiv 2303.01469, Definition 1, eq. 7).

    `squared` is the mean squared difference: its squared l2 distance over the number of elements.
    `pseudo-huber` is `sqrt(|x - y|^2 + c^2) - c` of each video with `c = 0.00054 *
    sqrt(dimensions)` (Pseudo-Huber, arXiv 2310.14189), which weighs outliers less.
    """
    if kind == "squared":
        return (x - y).square().mean()
    per_video = (x - y).square().sum(dim=tuple(range(1, x.ndim)))
    c = 0.00054 * math.sqrt(x[0].numel())
    return ((per_video + c * c).sqrt() - c).mean()
