"""A method in thirty lines: fit the student's velocity to the guided teacher's."""

import torch

from salt_zoo.core import flow
from salt_zoo.core.config import StrictModel
from salt_zoo.core.guidance import Guided
from salt_zoo.core.protocols import Role


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
            "student": Role("student", learning_rate=self.config.learning_rate),
            "teacher": Role("teacher"),
        }

    def turns(self, step):
        return ["student"]

    def train(self, turn):
        batch, networks = turn.batch, turn.networks
        t = flow.training_times(turn.draws.uniform("time"), shift=5.0)
        x = flow.add_noise(batch.x0, turn.draws.normal(turn.latent_shape, "noise"), t)
        guided = Guided(networks["teacher"], batch.unconditional, self.config.guidance_scale)
        with torch.no_grad():
            target = guided(x, t, batch.condition)
        loss = (networks["student"](x, t, batch.condition) - target).square().mean()
        turn.backward(loss)
        return {"loss": loss}
