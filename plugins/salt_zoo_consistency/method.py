"""Consistency distillation of a flow model, block by block on clean context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.transfers import send
from salt_zoo.core.guidance import Guided
from salt_zoo.core.protocols import NetworkSpec, TrainStep
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.forcing import teacher_forced
from salt_zoo.rollout.with_objectives import RolloutConfig, WithObjectives
from salt_zoo_consistency.losses import Distance, distance


class ConsistencyConfig(StrictModel):
    """Options of `consistency`; the defaults are those of Causal-Forcing++ (arXiv 2605.15141)."""

    #: Of the student.
    learning_rate: Annotated[float, Field(gt=0)] = 2e-6
    #: Intervals of the shifted time grid between which the student is made consistent.
    intervals: Annotated[int, Field(ge=1, le=10_000)] = 48
    #: Shift s of the times, `s t / (1 + (s - 1) t)`.
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: Of the teacher's Euler step.
    guidance_scale: float = 3.0
    #: Between the clean estimates of student and target: squared error, or pseudo-Huber.
    distance: Distance = "squared"
    #: Decay of the student's EMA that gives the target.
    target_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    #: Further terms of the student's loss, on rollouts of its own: options by registered name.
    objectives: dict[str, Any] = {}
    #: The rollouts of `objectives`.
    rollout: RolloutConfig = RolloutConfig()


class ConsistencyDistillation(WithObjectives):
    """`f(x_t, t) = x_t - t * v(x_t, t)` is made equal at both ends of one teacher step.

    Consistency distillation (arXiv 2303.01469, Algorithm 2): a solver's step (eq. 6), here one of
    Euler with guidance (the augmented PF-ODE of LCM, arXiv 2310.04378, eq. 12 to 15, as a reader's
    summary numbers them), `loss = d(f(x_t, t), sg f_target(y, s))` with weight 1 (Definition 1,
    eq. 7), and the target's average (eq. 8). On clean context it is causal consistency distillation
    (Causal-Forcing++, arXiv 2605.15141, eq. 3 and 4, counted in its LaTeX source).

    The teacher is the student's own first network (an autoregressive student is distilled from an
    autoregressive flow model: a bidirectional path is no function of the causal context).
    """

    version = 1
    Config = ConsistencyConfig
    needs_data = True

    def __init__(self, config: ConsistencyConfig, zoo: Zoo) -> None:
        super().__init__(config, zoo)
        steps = range(config.intervals, -1, -1)
        self.grid = torch.tensor(
            [flow.shift_time(k / config.intervals, config.timestep_shift) for k in steps]
        )

    def roles(self) -> Mapping[str, NetworkSpec]:
        own = {
            "student": NetworkSpec("student", learning_rate=self.config.learning_rate),
            "target": NetworkSpec(ema_of="student", decay=self.config.target_decay),  # eq. 8
            "teacher": NetworkSpec("student"),
        }
        return self.objectives.beside(own)

    def train(self, step: TrainStep) -> Mapping[str, Tensor]:
        if step.role != "student":
            return self.train_objectives(step)
        student, target = step.networks["student"], step.networks["target"]
        condition, x0 = step.batch.condition, step.batch.x0
        assert x0 is not None
        teacher = Guided(
            step.networks["teacher"], step.batch.unconditional, self.config.guidance_scale
        )
        noise = step.rng.randn(step.latent_shape, "noise")
        total = x0.new_zeros(())
        blocks = teacher_forced([student, target, teacher], x0, condition, step.blocks)
        for block, (frames, (student_cache, target_cache, teacher_cache)) in enumerate(blocks):
            k = torch.tensor(step.rng.randint(self.config.intervals, "interval", block))
            t, s = (send(self.grid[index], x0.device) for index in (k, k + 1))
            x = flow.add_noise(x0[:, :, frames], noise[:, :, frames], t)
            with torch.no_grad():
                y = flow.euler_step(x, teacher(x, t, condition, teacher_cache), t, s)  # eq. 6
                target_x0 = flow.x0_from_velocity(y, target(y, s, condition, target_cache), s)
            student_x0 = flow.x0_from_velocity(x, student(x, t, condition, student_cache), t)
            share = (frames.stop - frames.start) / x0.shape[2]
            loss = share * distance(student_x0, target_x0, self.config.distance)  # eq. 7
            step.backward(loss)
            total = total + loss.detach()
        return {"loss": total, **self.train_objectives(step)}
