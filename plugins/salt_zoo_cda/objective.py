"""Cache-conditioned alignment, an objective for any method with a frozen `teacher`."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.transfers import send
from salt_zoo.core.networks.blocks import ExitStep, RolloutPath
from salt_zoo.core.protocols import FeatureExtractor, TrainStep
from salt_zoo.plugin.manager import Zoo
from salt_zoo_cda import alignment
from salt_zoo_cda.reference import Renoising, reference_video

Fraction = Annotated[float, Field(ge=0, le=1)]


#: Of a step list that takes part in the alignment.
Denser = Annotated[int, Field(ge=2, le=10_000)]


class CacheAlignmentConfig(StrictModel):
    """Options of `cache-alignment`; the defaults are the paper's (arXiv 2604.03118), and what it
    leaves open those of its released recipe on Self Forcing."""

    #: Of the term in the student's loss; 0 switches it off.
    weight: Annotated[float, Field(ge=0)] = 0.1
    #: What is compared: relations of the frozen teacher's tokens, their distribution, or the
    #: videos themselves.
    loss: Literal["trd", "mmd", "x0"] = "trd"
    #: Student updates that are done before the term is used. The released recipes begin at turn
    #: 1000 of their loop on Self Forcing, 700 on Causal Forcing and 1200 on LongLive, with a
    #: student update in every fifth: 200 (the default: Self Forcing is the zoo's base), 140, 240.
    start: Annotated[int, Field(ge=0)] = 200
    #: Which step lists are aligned, each to which denser one. The released code has `{2: 4}`.
    reference: dict[Denser, Denser] = {2: 4, 4: 8}
    #: How the reference is noised again: with noise of its own, or with the student's at the times
    #: that both lists have (`noise_aligned_b` of the released code).
    renoising: Renoising = "independent"
    #: Of the reference's list (the method's own, or their times differ) and of the features'.
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: How deep in the teacher the features are taken, as a share of its blocks (20 of 40).
    depth: Fraction = 0.5
    #: Features are those of videos noised to times up to this (before the shift).
    highest: Fraction = 0.2
    #: Of `trd`: differences of a cosine that cost nothing.
    margin: Annotated[float, Field(ge=0)] = 0.1
    #: Of `mmd`: the kernel.
    kernel: alignment.Kernel = "linear"
    #: Of `mmd`: the width of the kernels `rbf` and `laplace`.
    sigma: Annotated[float, Field(gt=0)] = 100.0


class CacheAlignment:
    """Pulls what few steps make on their own memory to what more steps make on theirs.

    For draws of a listed step list with an exit index above 0. The reference is detached; the
    student's side is back-propagated through the frozen teacher.
    """

    version = 1
    Config = CacheAlignmentConfig

    def __init__(self, config: CacheAlignmentConfig, zoo: Zoo) -> None:
        self.config = config
        self.weight = config.weight
        for sparse, dense in config.reference.items():
            if dense <= sparse or dense % sparse:
                raise ZooError(
                    f"cache-alignment.reference: {sparse}: {dense}; a reference list has a whole "
                    f"multiple of the steps, so that it has all their times, for instance "
                    f"{sparse}: {2 * sparse}"
                )

    def on_exit(self, exit: ExitStep, path: RolloutPath, step: TrainStep) -> None:
        return None

    def on_video(self, video: Tensor, path: RolloutPath, step: TrainStep) -> Tensor | None:
        if step.blocks.new_memory is None:
            raise ZooError(
                "cache-alignment: this backbone is bidirectional and has no KV cache whose "
                "distribution could be aligned; switch the term off "
                "(objectives.cache-alignment: null; mixed step lists remain), or use an "
                "autoregressive backbone such as 'self-forcing'"
            )
        dense = self.config.reference.get(len(path.times))
        if step.index < self.config.start or dense is None or path.exit_step == 0:
            return None
        times = flow.step_list(dense, self.config.timestep_shift)
        reference = reference_video(
            step.networks["student"], step, path, times, self.config.renoising
        )
        if self.config.loss == "x0":
            return alignment.x0(video, reference)
        u = torch.full((len(video),), step.rng.shared_rand("alignment time"))
        t = flow.training_times(self.config.highest * u, self.config.timestep_shift, 0.02, 0.98)
        t = send(t, video.device)
        noise = step.rng.randn(step.latent_shape, "alignment noise")
        own = self._features(flow.add_noise(video, noise, t), t, step)
        with torch.no_grad():
            wanted = self._features(flow.add_noise(reference, noise, t), t, step)
        frames = video.shape[2]
        if self.config.loss == "trd":
            return alignment.trd(own, wanted, frames, self.config.margin)
        return alignment.mmd(own, wanted, frames, self.config.kernel, self.config.sigma)

    def _features(self, x: Tensor, t: Tensor, step: TrainStep) -> Tensor:
        teacher: FeatureExtractor = step.networks["teacher"]
        return teacher.features(x, t, step.batch.condition, self.config.depth)
