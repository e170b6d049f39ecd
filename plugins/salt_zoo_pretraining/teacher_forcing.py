"""Flow matching on real latents, block by block, each block given the clean blocks before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from salt_zoo import flow
from salt_zoo.config import StrictModel
from salt_zoo.protocols import Role, Turn
from salt_zoo.rollout import given_clean_past
from salt_zoo_pretraining.noising import times_by_block, with_dropout


class TeacherForcingConfig(StrictModel):
    """Options of `teacher-forcing`."""

    start: Literal["teacher", "student", "random"] = "student"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-6
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: Share of the videos whose prompt is replaced by the empty one, for guidance.
    prompt_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    #: How blocks see the clean past: in one masked pass beside a clean copy, through which gradient
    #: flows (as published), or block by block from a memory without gradient (less memory; twice as
    #: fast on a CPU).
    past: Literal["masked", "cached"] = "masked"


class TeacherForcing:
    """Weighted flow matching (arXiv 2210.02747) with teacher forcing (arXiv 2602.02214)."""

    Config = TeacherForcingConfig
    needs_data = True

    def __init__(self, config: TeacherForcingConfig, zoo: Any) -> None:
        self.config = config

    def roles(self) -> Mapping[str, Role]:
        return {"student": Role(self.config.start, learning_rate=self.config.learning_rate)}

    def turns(self, step: int) -> Sequence[str]:
        return ["student"]

    def train(self, turn: Turn) -> Mapping[str, Tensor]:
        student, x0 = turn.networks["student"], turn.batch.x0
        assert x0 is not None
        condition = with_dropout(turn, self.config.prompt_dropout)
        noise = turn.draws.normal(turn.latent_shape, "noise")
        t = times_by_block(turn, x0.shape[2], self.config.timestep_shift)
        x, target = flow.add_noise(x0, noise, t), flow.velocity(x0, noise)
        total = x0.new_zeros(())
        for frames, v in given_clean_past(
            student, x, t, x0, condition, turn.blocks, masked=self.config.past == "masked"
        ):
            loss = (v - target[:, :, frames]).square().mean()
            loss = loss * ((frames.stop - frames.start) / x0.shape[2])
            turn.backward(loss)
            total = total + loss.detach()
        return {"loss": total}
