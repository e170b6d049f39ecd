"""A plugin with a method one of whose networks starts from random weights."""

from __future__ import annotations

from salt_zoo import hookimpl
from salt_zoo.core.protocols import NetworkSpec


class RandomStart:
    needs_data = False

    def __init__(self, config, zoo):
        pass

    def roles(self):
        return {
            "student": NetworkSpec("student", learning_rate=1e-3),
            "scratch": NetworkSpec("random", learning_rate=1e-3),
        }

    def update_order(self, step):
        return ["student"]

    def train(self, step):
        raise NotImplementedError


@hookimpl
def register(zoo):
    zoo.methods.add("random-start", RandomStart, "for tests")
