"""DMD: a student's own rollouts, matched to the teacher's distribution; SC-DMD adds one objective.

Both names are one class with other defaults (`plugin.py`): what differs is the list of objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import RolloutPath, Sampler
from salt_zoo.core.protocols import NetworkSpec, TrainStep
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.bound import BoundRollout
from salt_zoo.rollout.objectives import Objectives, complete
from salt_zoo.rollout.paths import StepLists, check_probabilities, draw_path, one_list
from salt_zoo_dmd.losses import fake_score_loss
from salt_zoo_dmd.objectives import ScoreTimes

Rate = Annotated[float, Field(gt=0)]


class FakeScoreConfig(StrictModel):
    """The network that follows the student's distribution."""

    learning_rate: Rate = 4e-7
    #: Its updates for each update of the student (5: DMD2, arXiv 2405.14867, section 4.2).
    updates: Annotated[int, Field(ge=1, le=10_000)] = 5
    times: ScoreTimes = ScoreTimes()


class DMDConfig(StrictModel):
    """Options of `dmd` and `sc-dmd`; the defaults are those of Self Forcing (arXiv 2506.08009)."""

    learning_rate: Rate = 2e-6
    #: The step lists of training rollouts by number of steps, each with its probability; `steps: 8`
    #: is `{8: 1.0}`.
    steps: StepLists = {4: 1.0}
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    sampler: Sampler = "sde"
    fake_score: FakeScoreConfig = FakeScoreConfig()
    #: Who is trained first in an update. Published code trains the student first (Self Forcing and
    #: its descendants): its first update is then made with a fake score that is still the teacher.
    #: From the second update on both orders alternate alike.
    order: Literal["fake-score-first", "student-first"] = "fake-score-first"
    #: Terms of the student's loss: options by registered name. null switches one off.
    objectives: dict[str, Any] = {"distribution-matching": {}}

    _one_list = field_validator("steps", mode="before")(one_list)
    _probabilities = field_validator("steps")(check_probabilities)


class DMD:
    """Distribution matching on backward-simulated rollouts (DMD2, arXiv 2405.14867, section 4.5;
    Self Forcing, arXiv 2506.08009, Algorithm 1), with any further objectives."""

    version = 1
    Config = DMDConfig

    @classmethod
    def complete(cls, config: DMDConfig, zoo: Zoo, where: str) -> DMDConfig:
        """Fill in the options of the objectives."""
        objectives = complete(config.objectives, zoo, f"{where}.objectives")
        return config.model_copy(update={"objectives": objectives})

    def __init__(self, config: DMDConfig, zoo: Zoo) -> None:
        self.config = self.complete(config, zoo, "method")
        self.objectives = Objectives.of(self.config.objectives, zoo, "method.objectives")
        self.needs_data = self.objectives.needs_data

    def roles(self) -> Mapping[str, NetworkSpec]:
        own = {
            "student": NetworkSpec("student", learning_rate=self.config.learning_rate),
            "teacher": NetworkSpec("teacher"),
            "fake_score": NetworkSpec("score", learning_rate=self.config.fake_score.learning_rate),
        }
        return self.objectives.beside(own)

    def update_order(self, index: int) -> Sequence[str | tuple[str, ...]]:
        trained = self.objectives.trained
        update = ("fake_score", *trained) if trained else "fake_score"
        fake_score = [update] * self.config.fake_score.updates
        if self.config.order == "student-first":
            return ["student", *fake_score]
        return [*fake_score, "student"]

    def train(self, step: TrainStep) -> Mapping[str, Tensor]:
        if step.role == "fake_score":
            return self._fake_score(step)
        return self.objectives.train(step, self.path(step.rng), step.networks["student"])

    def path(self, rng: KeyedRNG) -> RolloutPath:
        """The step list and the exit step of an update, the same for all blocks and processes.

        Every update has draws of its own: those of student and fake score are independent.
        """
        config = self.config
        return draw_path(config.steps, config.timestep_shift, config.sampler, rng)

    def state_dict(self) -> dict[str, Any]:
        return self.objectives.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.objectives.load_state_dict(state)

    def _fake_score(self, step: TrainStep) -> dict[str, Tensor]:
        """Flow matching of the fake score on the student's videos (arXiv 2405.14867, section 4.6),
        and the update of the objectives' networks on the same videos."""
        x0 = BoundRollout(step, self.path(step.rng)).video(step.networks["student"])
        t = self.config.fake_score.times.draw(step.rng.rand("score time"))
        noise = step.rng.randn(step.latent_shape, "score noise")
        x = flow.add_noise(x0, noise, t)
        v = step.networks["fake_score"](x, t, step.batch.condition)
        loss = fake_score_loss(v, x0, noise)
        step.backward(loss)
        return {"loss": loss.detach(), **self.objectives.train_networks(x0, step)}
