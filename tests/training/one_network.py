"""A plugin with a method of one network, or two, to measure what loading them takes."""

from __future__ import annotations

from typing import Literal

from salt_zoo import hookimpl
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.protocols import NetworkSpec


class Config(StrictModel):
    frozen: bool = False  # a teacher beside it
    start: Literal["teacher", "student", "random"] = "student"


class OneNetwork:
    Config = Config
    needs_data = False

    def __init__(self, config, zoo):
        self.start, self.frozen = config.start, config.frozen

    def roles(self):
        teacher = {"teacher": NetworkSpec("teacher")} if self.frozen else {}
        return {"student": NetworkSpec(self.start, learning_rate=1e-3), **teacher}

    def update_order(self, step):
        return ["student"]

    def train(self, step):
        raise NotImplementedError


@hookimpl
def register(zoo):
    zoo.methods.add("one-network", OneNetwork, "for tests")
