"""Flow matching on real latents: what teacher forcing and diffusion forcing have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.config import StrictModel
from salt_zoo.core.protocols import Condition, NetworkSpec, TrainStep
from salt_zoo_pretraining.noising import times_by_block, with_dropout


class FlowMatchingConfig(StrictModel):
    """Options of every flow matching."""

    #: Whose weights the student begins with.
    start: Literal["teacher", "student", "random"] = "student"
    #: Of the student.
    learning_rate: Annotated[float, Field(gt=0)] = 2e-6
    #: Shift s of the times, `s t / (1 + (s - 1) t)`.
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: Share of the videos whose prompt is replaced by the empty one, for guidance.
    prompt_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1


class FlowMatching(ABC):
    """Weighted flow matching (arXiv 2210.02747), an independent time for every block."""

    version = 1
    needs_data = True

    def __init__(self, config: Any, zoo: Any) -> None:
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

    def update_order(self, step: int) -> Sequence[str]:
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
