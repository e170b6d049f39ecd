"""DMD: a student's own rollouts, matched to the teacher's distribution; SC-DMD adds one objective.

Both names are one class with other defaults (`plugin.py`): what differs is the list of objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from salt_zoo import flow
from salt_zoo.config import StrictModel
from salt_zoo.draws import Draws
from salt_zoo.protocols import Objective, Role, Turn
from salt_zoo.rollout import Sampler, renoise_from, rollout, walk
from salt_zoo_dmd.losses import fake_score_loss
from salt_zoo_dmd.objectives import ScoreTimes

Rate = Annotated[float, Field(gt=0)]


class FakeScoreConfig(StrictModel):
    """The network that follows the student's distribution."""

    learning_rate: Rate = 4e-7
    #: Updates for each update of the student.
    updates: Annotated[int, Field(ge=1)] = 5
    times: ScoreTimes = ScoreTimes()


class DMDConfig(StrictModel):
    """Options of `dmd` and `sc-dmd`; the defaults are those of Self Forcing (arXiv 2506.08009)."""

    learning_rate: Rate = 2e-6
    #: The step lists of training rollouts by number of steps, each with its probability.
    steps: dict[Annotated[int, Field(ge=1)], Annotated[float, Field(ge=0)]] = {4: 1.0}
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    sampler: Sampler = "sde"
    fake_score: FakeScoreConfig = FakeScoreConfig()
    #: Terms of the student's loss: options by registered name. None switches one off.
    objectives: dict[str, Any] = {"distribution-matching": {}}

    @field_validator("steps", mode="before")
    @classmethod
    def _one_list(cls, steps: Any) -> Any:
        return {steps: 1.0} if isinstance(steps, int) else steps

    @field_validator("steps")
    @classmethod
    def _probabilities(cls, steps: dict[int, float]) -> dict[int, float]:
        if not steps or abs(sum(steps.values()) - 1) > 1e-6:
            raise ValueError("the probabilities of the step lists must sum to 1")
        return steps


class DMD:
    """Distribution matching on backward-simulated rollouts, with any further objectives."""

    Config = DMDConfig
    needs_data = False

    @classmethod
    def complete(cls, config: DMDConfig, zoo: Any, where: str) -> DMDConfig:
        """Fill in the options of the objectives."""
        objectives = {
            name: zoo.objectives.configure(name, options, f"{where}.objectives.{name}").model_dump(
                mode="json"
            )
            for name, options in config.objectives.items()
            if options is not None
        }
        return config.model_copy(update={"objectives": objectives})

    def __init__(self, config: DMDConfig, zoo: Any) -> None:
        self.config = self.complete(config, zoo, "method")
        self.objectives: dict[str, Objective] = {}
        for name, options in self.config.objectives.items():
            checked = zoo.objectives.configure(name, options, f"method.objectives.{name}")
            objective = zoo.objectives.create(name, checked, zoo)
            if objective.weight != 0:
                self.objectives[name] = objective

    def roles(self) -> Mapping[str, Role]:
        return {
            "student": Role("student", learning_rate=self.config.learning_rate),
            "teacher": Role("teacher"),
            "fake_score": Role("teacher", learning_rate=self.config.fake_score.learning_rate),
        }

    def turns(self, step: int) -> Sequence[str]:
        return ["fake_score"] * self.config.fake_score.updates + ["student"]

    def train(self, turn: Turn) -> Mapping[str, Tensor]:
        return self._student(turn) if turn.role == "student" else self._fake_score(turn)

    def step_list(self, draws: Draws) -> tuple[list[float], int]:
        """The step list and the exit step of this turn, the same for all blocks and processes."""
        position, wanted = 0.0, draws.shared_uniform("step list")
        counts = list(self.config.steps)
        chosen = counts[-1]
        for count in counts:
            position += self.config.steps[count]
            if wanted < position:
                chosen = count
                break
        times = flow.step_list(chosen, self.config.timestep_shift)
        return times, draws.shared_integer(chosen, "exit step")

    def _student(self, turn: Turn) -> dict[str, Tensor]:
        times, exit_step = self.step_list(turn.draws)
        terms: dict[str, Tensor] = {}
        parts = []
        exits = walk(
            turn.networks["student"],
            turn.draws.normal(turn.latent_shape, "initial noise"),
            turn.batch.condition,
            times,
            blocks=turn.blocks,
            renoise=renoise_from(turn.draws, turn.blocks, turn.latent_shape),
            exit_step=exit_step,
            sampler=self.config.sampler,
            gradient=True,
        )
        frames = turn.latent_shape[1]
        for exit in exits:
            share = (exit.frames.stop - exit.frames.start) / frames
            for name, objective in self.objectives.items():
                term = objective.on_exit(exit, times, turn)
                if term is not None:
                    terms[name] = terms.get(name, 0) + share * term
            parts.append(exit.x0)
        video = torch.cat(parts, dim=2)
        for name, objective in self.objectives.items():
            term = objective.on_video(video, times, turn)
            if term is not None:
                terms[name] = terms.get(name, 0) + term
        weighted = [self.objectives[name].weight * term for name, term in terms.items()]
        # with every term off (or none due at this exit step) the student gets a gradient of 0
        loss = torch.stack(weighted).sum() if weighted else 0 * video.sum()
        turn.backward(loss)
        logs = {name.replace("-", "_"): term.detach() for name, term in terms.items()}
        return {"loss": loss.detach(), **{k: v for k, v in logs.items() if len(logs) > 1}}

    def _fake_score(self, turn: Turn) -> dict[str, Tensor]:
        times, exit_step = self.step_list(turn.draws)
        condition = turn.batch.condition
        x0 = rollout(
            turn.networks["student"],
            turn.draws.normal(turn.latent_shape, "initial noise"),
            condition,
            times,
            blocks=turn.blocks,
            renoise=renoise_from(turn.draws, turn.blocks, turn.latent_shape),
            exit_step=exit_step,
            sampler=self.config.sampler,
        ).detach()
        t = self.config.fake_score.times.draw(turn.draws.uniform("score time"))
        noise = turn.draws.normal(turn.latent_shape, "score noise")
        v = turn.networks["fake_score"](flow.add_noise(x0, noise, t), t, condition)
        loss = fake_score_loss(v, x0, noise)
        turn.backward(loss)
        return {"loss": loss.detach()}
