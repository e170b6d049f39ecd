"""Flow matching on real latents, block by block, each block given the clean blocks before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from salt_zoo import flow
from salt_zoo.conditions import choose
from salt_zoo.config import StrictModel
from salt_zoo.protocols import Role, Turn
from salt_zoo.rollout import teacher_forced


class TeacherForcingConfig(StrictModel):
    """Options of `teacher-forcing`."""

    start: Literal["teacher", "student", "random"] = "student"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-6
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: Share of the videos whose prompt is replaced by the empty one, for guidance.
    prompt_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1


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
        noise = turn.draws.normal(turn.latent_shape, "noise")
        dropped = turn.draws.uniform("prompt dropout") < self.config.prompt_dropout
        condition = choose(dropped, turn.batch.unconditional, turn.batch.condition)
        total = x0.new_zeros(())
        walk = teacher_forced([student], x0, condition, turn.blocks)
        for block, (frames, (memory,)) in enumerate(walk):
            u = turn.draws.uniform("time", block)
            t = flow.training_times(u, self.config.timestep_shift)
            clean, eps = x0[:, :, frames], noise[:, :, frames]
            v = student(flow.add_noise(clean, eps, t), t, condition, memory)
            loss = (v - flow.velocity(clean, eps)).square().mean()
            loss = loss * (clean.shape[2] / x0.shape[2])
            turn.backward(loss)
            total = total + loss.detach()
        return {"loss": total}
