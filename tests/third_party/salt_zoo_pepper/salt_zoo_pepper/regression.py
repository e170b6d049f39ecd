"""A method in thirty lines: fit the student's velocity to the guided teacher's."""

import torch

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.guidance import Guided
from salt_zoo.core.protocols import NetworkSpec


class Config(StrictModel):
    guidance_scale: float = 2.0
    learning_rate: float = 1e-4


class Regression:
    Config = Config
    needs_data = True

    def __init__(self, config, zoo):
        self.config = config

    def roles(self):
        return {
            "student": NetworkSpec("student", learning_rate=self.config.learning_rate),
            "teacher": NetworkSpec("teacher"),
        }

    def update_order(self, index):
        return ["student"]

    def train(self, step):
        batch, networks = step.batch, step.networks
        t = flow.training_times(step.rng.rand("time"), shift=5.0)
        x = flow.add_noise(batch.x0, step.rng.randn(step.latent_shape, "noise"), t)
        guided = Guided(networks["teacher"], batch.unconditional, self.config.guidance_scale)
        with torch.no_grad():
            target = guided(x, t, batch.condition)
        loss = (networks["student"](x, t, batch.condition) - target).square().mean()
        step.backward(loss)
        return {"loss": loss}
