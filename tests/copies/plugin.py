"""A plugin with the method `phases`: a teacher that becomes the student between phases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from salt_zoo import hookimpl
from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.protocols import NetworkSpec, TrainStep
from salt_zoo.rollout.forcing import teacher_forced


class Config(StrictModel):
    learning_rate: float = 1e-3
    #: Steps before which the teacher becomes the student.
    copied: tuple[int, ...] = (1,)
    #: The teacher becomes an average of the student.
    average: bool = False


class Phases:
    """The student is fitted to 0.9 times the teacher's velocity."""

    version = 1
    Config = Config
    needs_data = True

    def __init__(self, config: Config, zoo: Any) -> None:
        self.config = config

    def roles(self) -> Mapping[str, NetworkSpec]:
        student = {"student": NetworkSpec("student", learning_rate=self.config.learning_rate)}
        if not self.config.average:
            return {"teacher": NetworkSpec(copy_of="student"), **student}
        mean = {"mean": NetworkSpec(ema_of="student", decay=0.5)}
        return {"teacher": NetworkSpec(copy_of="mean"), **mean, **student}

    def update_order(self, index: int) -> list[str]:
        return ["teacher", "student"] if index in self.config.copied else ["student"]

    def train(self, step: TrainStep) -> Mapping[str, Tensor]:
        assert step.role == "student"
        x0, condition = step.batch.x0, step.batch.condition
        assert x0 is not None
        networks = [step.networks["student"], step.networks["teacher"]]
        t = step.rng.rand("time")
        noisy = flow.add_noise(x0, step.rng.randn(step.latent_shape, "noise"), t)
        total = x0.new_zeros(())
        for frames, caches in teacher_forced(networks, x0, condition, step.blocks):
            x = noisy[:, :, frames]
            with torch.no_grad():
                target = networks[1](x, t, condition, caches[1])
            loss = (networks[0](x, t, condition, caches[0]) - 0.9 * target).square().mean()
            step.backward(loss)
            total = total + loss.detach()
        return {"loss": total}


@hookimpl
def register(zoo: Any) -> None:
    zoo.methods.add("phases", Phases, "a teacher that becomes the student, for tests")
