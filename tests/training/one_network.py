"""A plugin with a method of one network, to measure what loading it takes."""

from __future__ import annotations

from typing import Literal

from salt_zoo import hookimpl
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.protocols import NetworkSpec


class Config(StrictModel):
    start: Literal["teacher", "student", "random"] = "student"


class OneNetwork:
    Config = Config
    needs_data = False

    def __init__(self, config, zoo):
        self.start = config.start

    def roles(self):
        return {"student": NetworkSpec(self.start, learning_rate=1e-3)}

    def update_order(self, step):
        return ["student"]

    def train(self, step):
        raise NotImplementedError


@hookimpl
def register(zoo):
    zoo.methods.add("one-network", OneNetwork, "for tests")
