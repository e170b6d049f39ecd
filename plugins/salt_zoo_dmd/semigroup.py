"""The semigroup property of a flow map, as a loss and as a measurement (Salt, arXiv 2604.03118).

`Psi_{a->b}(x) = x - (a - b) * v(x, a)` is a student's own Euler update. An exact flow map composes:
going from s to e equals going from s to m and on from m to e.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from salt_zoo.core import flow

Space = Literal["latent", "velocity"]
TimeWeight = Literal["one_minus_t", "none"]


def anchors(times: Sequence[float], num_segments: int) -> list[float]:
    """The start times of `num_segments` equal parts of a step list, falling, and 0.

    With more segments than steps a time is listed twice, and is drawn twice as often.
    """
    if num_segments < 1:
        raise ValueError(f"a list is cut into at least 1 segment, not {num_segments}")
    count = len(times)
    return [*(times[(i * count) // num_segments] for i in range(num_segments)), 0.0]


def choices(
    times: Sequence[float], exit_step: int, num_segments: int
) -> list[tuple[float, list[float]]]:
    """The end times that may be drawn at an exit step, each with its possible middle times.

    The end is one of the two largest anchors strictly below the *next* time of the list, or 0; the
    middle lies strictly between end and start, or is the end itself. Empty at the last step.
    """
    if exit_step + 1 >= len(times):
        return []
    start, following = times[exit_step], times[exit_step + 1]
    ends = [a for a in anchors(times, num_segments) if a < following][:2]
    return [(end, [t for t in times if end < t < start] or [end]) for end in ends]


def semigroup_loss(
    v_start: Tensor,
    v_middle: Tensor,
    t_start: float | Tensor,
    t_middle: float | Tensor,
    t_end: float | Tensor,
    *,
    x_start: Tensor | None = None,
    space: Space = "latent",
    time_weight: TimeWeight = "one_minus_t",
    mask: Tensor | None = None,
) -> Tensor:
    """How far one long step of the student is from its own two shorter ones.

    `latent` is the published form, `(1 - t_s) * mean((Psi_{s->e}(x) - sg(Psi_{m->e}(x_m)))**2)`;
    `velocity` divides the difference by `t_s - t_e` and so weighs short and long jumps alike.
    Gradient only through `v_start`; the middle point, too, is held fixed.

    Source: the loss L_SC of arXiv 2604.03118, section 3.2, eq. 8, as a third party's code numbers
    it: `E|x_e(1) - x_e(2)|^2` of the direct and the composed endpoint. The stop-gradients and the
    factor `1 - t_s` are those of the released code.

    Args:
        v_start: velocity at the exit step, with gradient.
        v_middle: velocity at `t_middle`, from the point that `v_start` leads to.
        x_start: the exit step's input. It cancels from the loss; given, the sums are done in the
            order of the published code, whose rounding is then matched.
        mask: entries (shaped like `v_start`) that count; the mean is over all entries all the same.
    """
    first = flow.at(t_start, v_start) - flow.at(t_middle, v_start)
    second = flow.at(t_middle, v_start) - flow.at(t_end, v_start)
    whole = first + second
    if space == "latent":
        x = torch.zeros_like(v_start) if x_start is None else x_start
        target = (x - first * v_start - second * v_middle).detach()
        error = (x - whole * v_start) - target
    else:
        target = ((first * v_start + second * v_middle) / whole).detach()
        error = v_start - target
    squared = error.square()
    if mask is not None:
        squared = squared * mask
    per_video = squared.mean(dim=tuple(range(1, squared.ndim)))
    if time_weight == "one_minus_t":
        per_video = (1 - t_start) * per_video
    return per_video.mean()


def local_defect(
    v_start: Tensor, v_middle: Tensor, t_start: float, t_middle: float, t_end: float
) -> Tensor:
    """`|Psi_{s->e}(x) - Psi_{m->e}(Psi_{s->m}(x))| / |Psi_{s->e}(x) - x|` per video, `[B]`.

    The paper (arXiv 2604.03118) reports such a defect; the divisor, the displacement's norm, is
    our reading of it.

    0 for an exact flow map, but also for any straight flow to a constant: never read it without
    quality and diversity beside it.
    """
    difference = (t_middle - t_end) * (v_middle - v_start)
    displacement = (t_start - t_end) * v_start
    dims = tuple(range(1, v_start.ndim))
    norm = displacement.square().sum(dims).sqrt().clamp(min=1e-12)
    return difference.square().sum(dims).sqrt() / norm
