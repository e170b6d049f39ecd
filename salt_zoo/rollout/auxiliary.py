"""Objectives beside a method's own loss, on rollouts of its student: for methods without rollouts.

Such a method has two options more, `objectives` and `rollout`, and five lines: see
`salt_zoo_consistency.method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, field_validator

from salt_zoo.core.blocks import RolloutPath, Sampler
from salt_zoo.core.config import StrictModel
from salt_zoo.core.protocols import NetworkSpec, TrainStep
from salt_zoo.rollout.bound import BoundRollout
from salt_zoo.rollout.objectives import Objectives, Terms, complete
from salt_zoo.rollout.paths import StepLists, check_probabilities, draw_path, one_list

Config = TypeVar("Config", bound=BaseModel)


class RolloutConfig(StrictModel):
    """The rollouts on which further objectives are computed."""

    #: Step lists by number of steps, each with its probability.
    steps: StepLists = {4: 1.0}
    sampler: Sampler = "sde"

    _one_list = field_validator("steps", mode="before")(one_list)
    _probabilities = field_validator("steps")(check_probabilities)


def complete_auxiliary(config: Config, zoo: Any, where: str) -> Config:
    """The options of a method, those of its `objectives` filled in."""
    given: Mapping[str, Any] = config.model_dump()["objectives"]
    completed = complete(given, zoo, f"{where}.objectives", required=False)
    return config.model_copy(update={"objectives": completed})


class Auxiliary:
    """The further objectives of a method; without any, nothing is computed and nothing drawn.

    Args:
        options: of the objectives, completed.
        rollout: how the student is rolled out for them.
        timestep_shift: of the step lists.
    """

    def __init__(
        self, options: Mapping[str, Any], rollout: RolloutConfig, timestep_shift: float, zoo: Any
    ) -> None:
        self.objectives = Objectives.of(options, zoo, "method.objectives")
        self._rollout, self._timestep_shift = rollout, timestep_shift

    @property
    def needs_data(self) -> bool:
        return self.objectives.needs_data

    def beside(self, own: Mapping[str, NetworkSpec]) -> dict[str, NetworkSpec]:
        """The method's own roles and those of the objectives."""
        return self.objectives.beside(own)

    def update_order(self) -> list[str | tuple[str, ...]]:
        """The networks of the objectives together, where they train some, and the student."""
        trained = self.objectives.trained
        return [trained, "student"] if trained else ["student"]

    def train(self, step: TrainStep) -> Terms:
        """Hand the gradient of the weighted terms of the student to `step.backward`, and return the
        terms to log."""
        if not self.objectives:
            return {}
        step, path = self._bound(step)
        terms = self.objectives.train_terms(step, path, step.networks["student"])
        return {name.replace("-", "_"): term for name, term in terms.items()}

    def train_networks(self, step: TrainStep) -> Terms:
        """The update of the networks of the objectives, on videos that are made for it."""
        step, path = self._bound(step)
        video = BoundRollout(step, path).video(step.networks["student"])
        return self.objectives.train_networks(video, step)

    def _bound(self, step: TrainStep) -> tuple[TrainStep, RolloutPath]:
        """The step with draws of their own: none of the method's changes."""
        step = replace(step, rng=step.rng.at("objectives"))
        steps, sampler = self._rollout.steps, self._rollout.sampler
        return step, draw_path(steps, self._timestep_shift, sampler, step.rng)
