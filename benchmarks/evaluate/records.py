"""What evaluation and training hand to the statistics: the scores and the cost of every network."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class LongVideoResult:
    """Scores of videos longer than the training's, clip by clip. Frames are of pixels.

    Attributes:
        frames: of a clip: the training's length.
        stops: the frame at which each clip ends: one at the end of every block.
        ends: by length, in multiples of the training's, the index of its last clip.
        rows: by metric `[clips, P]` scores or `[clips, P, D]` features of the same P prompts.
        pixels: uint8 `[K, channels, frames, height, width]`, the whole videos of the first K rows.
    """

    frames: int
    stops: list[int]
    ends: dict[str, int]
    rows: dict[str, np.ndarray]
    pixels: np.ndarray


@dataclass(frozen=True)
class EvalResult:
    """The scores of one arm, at one training seed and sampling setting.

    Attributes:
        arm: its label, unique within the study; for baselines the baseline's name.
        method: the registered method's name, or the baseline's.
        seed: training seed; None for baselines.
        nfe, sampler: how it was sampled; None for real videos.
        passes: network passes per generated video, in whole videos: `nfe`, and beside it
            `guidance` and `memory` (cache writes), see `SamplingConfig.passes`.
        rows: by metric `[P]` scores or `[P, D]` features of the same P prompts everywhere.
        pixels: uint8 `[K, channels, frames, height, width]`, the videos of the first K rows.
        long: scores of long videos, where the study measures them.
        own_rollouts: the metrics in `rows` that sample rollouts of their own with this NFE and
            sampler, and do not look at the videos. If they are all, no video was sampled.
        setting: what of the sampling is the arm's own and not the study's, in words (`ode, shift
            3`). `sampler` is then the study's under which it is compared, which may differ. It does
            not concern `own_rollouts`.
    """

    arm: str
    method: str
    backbone: str
    memory: str | None
    seed: int | None
    nfe: int | None
    sampler: str | None
    passes: dict[str, float]
    rows: dict[str, np.ndarray]
    pixels: np.ndarray
    long: LongVideoResult | None = None
    own_rollouts: tuple[str, ...] = ()
    setting: str | None = None


@dataclass(frozen=True)
class TrainingCost:
    """The cost of one training. `passes` by role, each `{"forward": n, "backward": n}`; `curve` is
    its history, dictionaries with `step`, `seconds` and the logged scalars; `error` is the reason
    of a failure."""

    arm: str
    seed: int
    updates: int
    passes: dict[str, dict[str, float]]
    flops: float
    seconds: float
    error: str | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
