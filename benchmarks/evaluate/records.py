"""What the study runner hands over: scores of every arm, costs of every training, metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Long:
    """Videos longer than the training's, measured clip by clip.

    Attributes:
        frames: of a clip: the training's length. All frames here are of pixels.
        stops: the frame at which each clip ends: one at the end of every block.
        ends: by length, in multiples of the training's, the number of its last clip.
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
    """One arm, one training seed, one sampling setting.

    Attributes:
        arm: its label, unique within the study; for reference rows the reference's name.
        method: the registered method's name, or the reference's.
        seed: training seed; None for references.
        nfe, sampler: how it was sampled; None for real data.
        passes: network passes per generated video, in whole videos: `nfe`, and apart from it
            `guidance` and `memory` (writes), see `SamplingConfig.passes`.
        rows: by metric `[P]` scores or `[P, D]` features of the same P prompts everywhere.
        pixels: uint8 `[K, channels, frames, height, width]`, the videos of the first K rows.
        long: what longer videos showed, where the study asks for them.
        own: those of the rows whose metric made rollouts of its own, with this NFE and sampler, and
            did not look at the videos. Where all are such, nothing was sampled for the study.
        setting: what of the sampling is the arm's own and not the study's, in words (`ode, shift
            3`). `sampler` is then the study's under which it is compared, which may be another
            one. It is not about the rows of `own`.
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
    long: Long | None = None
    own: tuple[str, ...] = ()
    setting: str | None = None


@dataclass(frozen=True)
class TrainingCost:
    """What one training took. `passes` by role, each `{"forward": n, "backward": n}`; `curve` is
    its history, dictionaries with `step`, `seconds` and any logged scalar; `error` says why it
    failed."""

    arm: str
    seed: int
    updates: int
    passes: dict[str, dict[str, float]]
    flops: float
    seconds: float
    error: str | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
