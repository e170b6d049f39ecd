"""The terms of a student's loss in DMD and SC-DMD, as objectives that any method may use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.guidance import AutoGuided, Guided
from salt_zoo.core.networks.blocks import ExitStep, RolloutPath
from salt_zoo.core.protocols import NetworkSpec, TrainStep
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.sampler import full_time
from salt_zoo_dmd.losses import distribution_matching_gradient, distribution_matching_loss
from salt_zoo_dmd.semigroup import Space, TimeWeight, choices, semigroup_loss

Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class ScoreTimes(StrictModel):
    """The times at which scores are compared and the fake score is trained."""

    #: Shift s of the times, `s t / (1 + (s - 1) t)`.
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: Least time, after the shift.
    lowest: Fraction = 0.02
    #: Greatest time, after the shift.
    highest: Fraction = 0.98

    def draw(self, u: Tensor) -> Tensor:
        """Uniform `u` `[B]` in [0, 1) as times `[B]`."""
        return flow.training_times(u, self.timestep_shift, self.lowest, self.highest)


class DistributionMatchingConfig(StrictModel):
    """Options of `distribution-matching`."""

    weight: Weight = 1.0
    #: Of the real score. Self Forcing's "3.0" is 4 here.
    guidance_scale: float = 4.0
    #: What guidance leads away from: the teacher without a prompt (classifier-free guidance), or,
    #: for a larger teacher, the pretrained network of the student's size (autoguidance,
    #: arXiv 2406.02507).
    guide: Literal["unconditional", "score"] = "unconditional"
    times: ScoreTimes = ScoreTimes()


class DistributionMatching:
    """Move the student's videos along the difference of real and fake score (arXiv 2405.14867,
    eq. 2; `losses.py` has the numbers of each part).

    Needs the frozen role `teacher` and the trained role `fake_score`.
    """

    version = 1
    Config = DistributionMatchingConfig
    needs_data = False

    def __init__(self, config: DistributionMatchingConfig, zoo: Zoo) -> None:
        self.config = config
        self.weight = config.weight
        self._autoguidance = config.guide == "score" and config.guidance_scale != 1

    def roles(self) -> Mapping[str, NetworkSpec]:
        """The weaker network of autoguidance."""
        return {"guide": NetworkSpec("score")} if self._autoguidance else {}

    def on_generated(self, video: Tensor, step: TrainStep) -> None:
        return None

    def on_exit(self, exit: ExitStep, path: RolloutPath, step: TrainStep) -> None:
        return None

    def on_video(self, video: Tensor, path: RolloutPath, step: TrainStep) -> Tensor:
        if lacking := {"teacher", "fake_score"} - step.networks.keys():
            raise ZooError(
                f"distribution-matching: the method has no role {min(lacking)!r}; it is a term of "
                "dmd and its kin, which train a fake score"
            )
        x, condition = video.detach(), step.batch.condition
        t = self.config.times.draw(step.rng.rand("score time"))
        noisy = flow.add_noise(x, step.rng.randn(step.latent_shape, "score noise"), t)
        teacher = self._real_score(step)
        with torch.no_grad():
            real = flow.x0_from_velocity(noisy, teacher(noisy, t, condition), t)
            fake_v = step.networks["fake_score"](noisy, t, condition)
            fake = flow.x0_from_velocity(noisy, fake_v, t)
        return distribution_matching_loss(video, distribution_matching_gradient(x, real, fake))

    def _real_score(self, step: TrainStep) -> Guided | AutoGuided:
        teacher, scale = step.networks["teacher"], self.config.guidance_scale
        if not self._autoguidance:
            return Guided(teacher, step.batch.unconditional, scale)
        guide = step.networks["guide"]
        sizes = [sum(p.numel() for p in network.parameters()) for network in (teacher, guide)]
        if sizes[0] == sizes[1]:
            raise ZooError(
                "distribution-matching.guide: score, but the teacher has the student's size and "
                "would guide itself; name a larger one in backbone.teacher, or write "
                "guide: unconditional"
            )
        return AutoGuided(teacher, guide, scale)


class SelfConsistencyConfig(StrictModel):
    """Options of `self-consistency`; the defaults are the published ones (arXiv 2604.03118)."""

    weight: Weight = 0.2
    #: `latent` as published; `velocity` divides by the length of the jump (our variant).
    space: Space = "latent"
    #: Factor of the term at the exit time t: `1 - t` as published, or none.
    time_weight: TimeWeight = "one_minus_t"
    #: Equal parts into which the step list is cut; long steps end at their starts, or at 0.
    num_segments: Annotated[int, Field(ge=1)] = 4
    #: The term is used on rollouts of the list with this many steps only.
    steps: Annotated[int, Field(ge=2, le=10_000)] = 8


class SelfConsistency:
    """The semigroup-defect regulariser of SC-DMD, at the exit step of every block (Salt, arXiv
    2604.03118; its numbers: `semigroup_loss`)."""

    version = 1
    Config = SelfConsistencyConfig

    def __init__(self, config: SelfConsistencyConfig, zoo: Zoo) -> None:
        self.config = config
        self.weight = config.weight

    def on_exit(self, exit: ExitStep, path: RolloutPath, step: TrainStep) -> Tensor | None:
        if len(path.times) != self.config.steps:
            return None
        ends = choices(path.times, exit.step, self.config.num_segments)
        if not ends:
            return None
        # without the block in the keys: all blocks share one pair of times
        end, middles = ends[step.rng.shared_randint(len(ends), "semigroup end")]
        middle = middles[step.rng.shared_randint(len(middles), "semigroup middle")]
        with torch.no_grad():
            x_middle = flow.euler_step(exit.x, exit.v, exit.t, middle)
            v_middle = step.networks["student"](
                x_middle, full_time(middle, x_middle), exit.condition, exit.memory
            )
        return semigroup_loss(
            exit.v,
            v_middle,
            exit.t,
            middle,
            end,
            x_start=exit.x,
            space=self.config.space,
            time_weight=self.config.time_weight,
        )

    def on_video(self, video: Tensor, path: RolloutPath, step: TrainStep) -> None:
        return None
