"""Flow matching on real latents, with teacher forcing or diffusion forcing on a causal backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.protocols import Condition, NetworkSpec, TrainStep
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.forcing import forward_block_causal, forward_teacher_forced
from salt_zoo_flow_matching.draws import times_by_block, with_dropout


class FlowMatchingConfig(StrictModel):
    """Options of `diffusion-forcing`; `teacher-forcing` adds one."""

    #: Initial weights of the student.
    start: Literal["teacher", "student", "random"] = "student"
    #: Of the student.
    learning_rate: Annotated[float, Field(gt=0)] = 2e-6
    #: Shift s of the times, `s t / (1 + (s - 1) t)`.
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: Share of the videos whose prompt is replaced by the empty one, for guidance.
    prompt_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1


class FlowMatching(ABC):
    """Weighted flow matching, an independent time for every block: arXiv 2210.02747, eq. 9, on the
    straight path of eq. 22 and 23; rectified flow, arXiv 2209.03003, eq. 1 (see `flow.velocity`).
    The weight is the density of the shifted times."""

    version = 1
    needs_data = True

    def __init__(self, config: FlowMatchingConfig, zoo: Zoo) -> None:
        self.config = config

    @abstractmethod
    def velocities(
        self, step: TrainStep, x: Tensor, t: Tensor, x0: Tensor, condition: Condition
    ) -> Iterable[tuple[slice, Tensor]]:
        """Frames and the student's velocity there, `[B, C, f, H, W]`, until all frames are done.

        `x` `[B, C, F, H, W]` are the videos `x0` noised to the times `t` `[B, F]`, equal within a
        block. What was handed out is backpropagated before the next is asked for.
        """

    def roles(self) -> Mapping[str, NetworkSpec]:
        return {"student": NetworkSpec(self.config.start, learning_rate=self.config.learning_rate)}

    def update_order(self, index: int) -> Sequence[str]:
        return ["student"]

    def train(self, step: TrainStep) -> Mapping[str, Tensor]:
        x0 = step.batch.x0
        assert x0 is not None
        condition = with_dropout(step, self.config.prompt_dropout)
        noise = step.rng.randn(step.latent_shape, "noise")
        t = times_by_block(step, x0.shape[2], self.config.timestep_shift)
        x, target = flow.add_noise(x0, noise, t), flow.velocity(x0, noise)
        total = x0.new_zeros(())
        for frames, v in self.velocities(step, x, t, x0, condition):
            loss = (v - target[:, :, frames]).square().mean()
            loss = loss * ((frames.stop - frames.start) / x0.shape[2])
            step.backward(loss)
            total = total + loss.detach()
        return {"loss": total}


class TeacherForcingConfig(FlowMatchingConfig):
    """Options of `teacher-forcing`."""

    #: How blocks see the clean past: in one masked pass beside a clean copy, through which gradient
    #: flows (as published), or block by block from a memory without gradient (less memory; twice as
    #: fast on a CPU).
    past: Literal["masked", "cached"] = "masked"


class TeacherForcing(FlowMatching):
    """Flow matching with teacher forcing: `v(x_t^i, t; x0^{<i})` (arXiv 2602.02214, stage 1)."""

    Config = TeacherForcingConfig
    config: TeacherForcingConfig

    def velocities(
        self, step: TrainStep, x: Tensor, t: Tensor, x0: Tensor, condition: Condition
    ) -> Iterable[tuple[slice, Tensor]]:
        masked = self.config.past == "masked"
        student = step.networks["student"]
        return forward_teacher_forced(student, x, t, x0, condition, step.blocks, masked=masked)


class DiffusionForcing(FlowMatching):
    """Flow matching with diffusion forcing (arXiv 2407.01392, Algorithm 1 and eq. 3.1, there of the
    noise in place of the velocity), as CausVid (2412.07772, section 4.2) uses it.

    On a bidirectional backbone it is bitwise `teacher-forcing`: plain flow matching.
    """

    Config = FlowMatchingConfig

    def velocities(
        self, step: TrainStep, x: Tensor, t: Tensor, x0: Tensor, condition: Condition
    ) -> Iterable[tuple[slice, Tensor]]:
        return forward_block_causal(step.networks["student"], x, t, condition, step.blocks)
