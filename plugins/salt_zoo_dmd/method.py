"""DMD: a student's own rollouts, matched to the teacher's distribution; SC-DMD adds one objective.

Both names are one class with other defaults (`plugin.py`): what differs is the list of objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.blocks import ExitStep, RolloutPath, Sampler
from salt_zoo.core.config import Steps, StrictModel
from salt_zoo.core.errors import ZooError
from salt_zoo.core.protocols import NetworkSpec, Objective, TrainStep
from salt_zoo.core.rng import KeyedRNG
from salt_zoo.rollout.sampler import initial_noise, iter_rollout, renoise_from, replay, rollout
from salt_zoo_dmd.losses import fake_score_loss
from salt_zoo_dmd.objectives import ScoreTimes

Rate = Annotated[float, Field(gt=0)]
#: Step lists by number of steps, each with its probability.
StepLists = dict[Steps, Annotated[float, Field(ge=0)]]


class FakeScoreConfig(StrictModel):
    """The network that follows the student's distribution."""

    learning_rate: Rate = 4e-7
    #: Its updates for each update of the student.
    updates: Annotated[int, Field(ge=1, le=10_000)] = 5
    times: ScoreTimes = ScoreTimes()


class DMDConfig(StrictModel):
    """Options of `dmd` and `sc-dmd`; the defaults are those of Self Forcing (arXiv 2506.08009)."""

    learning_rate: Rate = 2e-6
    #: The step lists of training rollouts by number of steps, each with its probability.
    steps: StepLists = {4: 1.0}
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    sampler: Sampler = "sde"
    fake_score: FakeScoreConfig = FakeScoreConfig()
    #: Who is trained first in an update. Published code trains the student first (Self Forcing and
    #: its descendants): its first update is then made with a fake score that is still the teacher.
    #: From the second update on both orders alternate alike.
    order: Literal["fake-score-first", "student-first"] = "fake-score-first"
    #: Terms of the student's loss: options by registered name. None switches one off.
    objectives: dict[str, Any] = {"distribution-matching": {}}

    @field_validator("steps", mode="before")
    @classmethod
    def _one_list(cls, steps: Any) -> Any:
        return {steps: 1.0} if isinstance(steps, int | float) else steps

    @field_validator("steps")
    @classmethod
    def _probabilities(cls, steps: dict[int, float]) -> dict[int, float]:
        if not steps or abs(sum(steps.values()) - 1) > 1e-6:
            raise ValueError("the probabilities of the step lists must sum to 1")
        return steps


class DMD:
    """Distribution matching on backward-simulated rollouts, with any further objectives."""

    version = 1
    Config = DMDConfig
    needs_data = False

    @classmethod
    def complete(cls, config: DMDConfig, zoo: Any, where: str) -> DMDConfig:
        """Fill in the options of the objectives; one that is switched off stays there as None, so
        that what is completed once more does not get its default back."""
        objectives: dict[str, Any] = {}
        for name, options in config.objectives.items():
            objectives[name] = None
            if options is not None:
                made = zoo.objectives.configure(name, options, f"{where}.objectives.{name}")
                objectives[name] = made.model_dump(mode="json")
        if not any(options and options.get("weight", 1) for options in objectives.values()):
            raise ZooError(
                f"{where}.objectives: every term is switched off (null, or of weight 0), so that "
                "nothing would train the student; keep one, such as distribution-matching"
            )
        return config.model_copy(update={"objectives": objectives})

    def __init__(self, config: DMDConfig, zoo: Any) -> None:
        self.config = self.complete(config, zoo, "method")
        self.objectives: dict[str, Objective] = {}
        for name, options in self.config.objectives.items():
            if options is None:
                continue
            checked = zoo.objectives.configure(name, options, f"method.objectives.{name}")
            objective = zoo.objectives.create(name, checked, zoo)
            if objective.weight != 0:
                self.objectives[name] = objective

    def roles(self) -> Mapping[str, NetworkSpec]:
        return {
            "student": NetworkSpec("student", learning_rate=self.config.learning_rate),
            "teacher": NetworkSpec("teacher"),
            "fake_score": NetworkSpec("score", learning_rate=self.config.fake_score.learning_rate),
        }

    def update_order(self, step: int) -> Sequence[str]:
        fake_score = ["fake_score"] * self.config.fake_score.updates
        if self.config.order == "student-first":
            return ["student", *fake_score]
        return [*fake_score, "student"]

    def train(self, step: TrainStep) -> Mapping[str, Tensor]:
        return self._student(step) if step.role == "student" else self._fake_score(step)

    def path(self, rng: KeyedRNG) -> RolloutPath:
        """The step list and the exit step of a turn, the same for all blocks and processes; every
        turn has draws of its own, so those of student and fake score are independent."""
        position, wanted = 0.0, rng.shared_rand("step list")
        counts = list(self.config.steps)
        chosen = counts[-1]
        for count in counts:
            position += self.config.steps[count]
            if wanted < position:
                chosen = count
                break
        times = flow.step_list(chosen, self.config.timestep_shift)
        return RolloutPath(times, rng.shared_randint(chosen, "exit step"), self.config.sampler)

    def _student(self, step: TrainStep) -> dict[str, Tensor]:
        path = self.path(step.rng)
        student, condition = step.networks["student"], step.batch.condition
        renoise = renoise_from(step.rng, step.blocks, step.latent_shape)
        alone = len(step.blocks.split(step.latent_shape[1])) == 1
        exits = iter_rollout(
            student,
            initial_noise(step.rng, step.blocks, step.latent_shape),
            condition,
            path.times,
            blocks=step.blocks,
            renoise=renoise,
            exit_step=path.exit_step,
            sampler=path.sampler,
            gradient=alone,
        )
        if alone:
            (exit,) = exits
            terms = self._on_video(exit.x0, path, step)
            self._add(terms, self._on_exit(exit, path, step), 1.0)
            step.backward(self._total(terms, exit.x0))
            return self._logs(terms, exit.x0)
        # no gradient flows through the memory, so the video's gradient is all that a block needs
        # of the others: blocks are run again one by one, and only one block's graph exists
        finished = [replace(exit, memory=None) for exit in exits]
        video = torch.cat([exit.x0 for exit in finished], dim=2).requires_grad_()
        terms = self._on_video(video, path, step)
        (gradient,) = torch.autograd.grad(self._total(terms, video), video)
        terms = {name: term.detach() for name, term in terms.items()}
        for exit in replay(student, finished, step.blocks, renoise):
            share = (exit.frames.stop - exit.frames.start) / step.latent_shape[1]
            own = self._on_exit(exit, path, step)
            weighted = share * self._total(own, exit.x0)
            step.backward((gradient[:, :, exit.frames] * exit.x0).sum() + weighted)
            self._add(terms, own, share)
        return self._logs(terms, video)

    def _on_video(self, video: Tensor, path: RolloutPath, step: TrainStep) -> dict[str, Tensor]:
        found = {name: o.on_video(video, path, step) for name, o in self.objectives.items()}
        return {name: term for name, term in found.items() if term is not None}

    def _on_exit(self, exit: ExitStep, path: RolloutPath, step: TrainStep) -> dict[str, Tensor]:
        found = {name: o.on_exit(exit, path, step) for name, o in self.objectives.items()}
        return {name: term for name, term in found.items() if term is not None}

    @staticmethod
    def _add(terms: dict[str, Tensor], more: Mapping[str, Tensor], share: float) -> None:
        for name, term in more.items():
            terms[name] = terms.get(name, 0) + share * term

    def _total(self, terms: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """The weighted sum; with every term off (or none due here) a gradient of 0."""
        weighted = [self.objectives[name].weight * term for name, term in terms.items()]
        return torch.stack(weighted).sum() if weighted else 0 * output.sum()

    def _logs(self, terms: Mapping[str, Tensor], output: Tensor) -> dict[str, Tensor]:
        values = {name: term.detach() for name, term in terms.items()}
        zero = output.new_zeros(())
        loss = sum((self.objectives[name].weight * v for name, v in values.items()), zero)
        apart = {name.replace("-", "_"): value for name, value in values.items()}
        return {"loss": loss, **(apart if len(apart) > 1 else {})}

    def _fake_score(self, step: TrainStep) -> dict[str, Tensor]:
        path = self.path(step.rng)
        condition = step.batch.condition
        x0 = rollout(
            step.networks["student"],
            initial_noise(step.rng, step.blocks, step.latent_shape),
            condition,
            path.times,
            blocks=step.blocks,
            renoise=renoise_from(step.rng, step.blocks, step.latent_shape),
            exit_step=path.exit_step,
            sampler=path.sampler,
        ).detach()
        t = self.config.fake_score.times.draw(step.rng.rand("score time"))
        noise = step.rng.randn(step.latent_shape, "score noise")
        v = step.networks["fake_score"](flow.add_noise(x0, noise, t), t, condition)
        loss = fake_score_loss(v, x0, noise)
        step.backward(loss)
        return {"loss": loss.detach()}
