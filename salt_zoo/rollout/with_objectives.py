"""Objectives beside the loss of a method without rollouts, on rollouts of its student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, field_validator

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.networks.blocks import Sampler
from salt_zoo.core.protocols import TrainStep
from salt_zoo.rollout.bound import BoundRollout
from salt_zoo.rollout.objectives import Objectives, Terms, complete
from salt_zoo.rollout.paths import StepLists, check_probabilities, draw_path, one_list

Config = TypeVar("Config", bound=BaseModel)


class RolloutConfig(StrictModel):
    """The rollouts on which further objectives are computed."""

    #: Step lists by number of steps, each with its probability; `steps: 8` is `{8: 1.0}`.
    steps: StepLists = {4: 1.0}
    sampler: Sampler = "sde"

    _one_list = field_validator("steps", mode="before")(one_list)
    _probabilities = field_validator("steps")(check_probabilities)


class WithObjectives:
    """A method that may have objectives beside its own loss, on rollouts of its student.

    Its `Config` has the options `objectives`, `rollout` (a `RolloutConfig`) and `timestep_shift`.
    Without objectives nothing is computed and nothing drawn.
    """

    config: Any

    @classmethod
    def complete(cls, config: Config, zoo: Any, where: str) -> Config:
        """Fill in the options of the objectives."""
        given: Mapping[str, Any] = config.model_dump()["objectives"]
        completed = complete(given, zoo, f"{where}.objectives", required=False)
        return config.model_copy(update={"objectives": completed})

    def __init__(self, config: Any, zoo: Any) -> None:
        self.config = self.complete(config, zoo, "method")
        self.objectives = Objectives.of(self.config.objectives, zoo, "method.objectives")

    def update_order(self, index: int) -> Sequence[str | tuple[str, ...]]:
        """The networks of the objectives together, where they train some, and the student."""
        trained = self.objectives.trained
        return [trained, "student"] if trained else ["student"]

    def train_objectives(self, step: TrainStep) -> Terms:
        """Hand the gradient of the weighted terms of the student to `step.backward`, and return the
        terms to log; in an update of the objectives' networks the same for those."""
        if not self.objectives:
            return {}
        step = replace(step, rng=step.rng.at("objectives"))  # no draw of the method changes
        rollout, student = self.config.rollout, step.networks["student"]
        path = draw_path(rollout.steps, self.config.timestep_shift, rollout.sampler, step.rng)
        if step.role != "student":
            video = BoundRollout(step, path).video(student)
            return self.objectives.train_networks(video, step)
        terms = self.objectives.train_terms(step, path, student)
        return {name.replace("-", "_"): term for name, term in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        return self.objectives.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.objectives.load_state_dict(state)
