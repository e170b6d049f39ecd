"""A plugin with a method of one network, or two, and a size of one block whose weights are in
files, for tests of how they are loaded."""

from __future__ import annotations

from typing import Any, Literal

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo import hookimpl
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo_digits.size import TRANSFORMER, DigitsSize
from salt_zoo_wan.checkpoint.load import load_transformer

SHALLOW: dict[str, Any] = {**TRANSFORMER, "num_layers": 1}


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


class Shallow(DigitsSize):
    transformer_config = SHALLOW

    def transformer_files(self):
        return self._there()

    def transformer(self, start):
        if start == "random":
            return WanTransformer3DModel(**SHALLOW)
        return load_transformer(self._there(), SHALLOW)


@hookimpl
def register(zoo):
    zoo.methods.add("one-network", OneNetwork, "for tests")
    zoo.sizes.add("shallow", Shallow, "for tests")
