"""Regression of a few-step student onto the endpoints of a flow model's ODE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from einops import repeat
from pydantic import Field
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import NetworkSpec, TrainStep
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.forcing import forward_block_causal, forward_teacher_forced
from salt_zoo.rollout.with_objectives import RolloutConfig, WithObjectives
from salt_zoo_ode.fitting import fitting
from salt_zoo_ode.trajectories import TrajectoryConfig, Whose, draw_trajectories


class OdeRegressionConfig(TrajectoryConfig):
    """Options of `ode-regression`. The dataset's trajectories are used where it has some, else they
    are made in every update: `teacher_steps` passes for one of the student's."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-6
    #: Whose trajectories are made; `dataset`: none, the dataset has them, which saves the memory
    #: of the teacher's weights.
    of: Whose | Literal["dataset"] = "teacher"
    #: Of the trajectories that are made here.
    guidance_scale: float = 5.0
    #: What a block sees of those before it: their states at times of their own (`noisy`), likewise
    #: but as often their endpoints as each of the states (`mixed`, CausVid's step list that ends at
    #: 0), or their endpoints (`clean`, Causal Forcing). null is clean for trajectories that were
    #: made here on their own past, else mixed.
    context: Literal["noisy", "mixed", "clean"] | None = None
    #: Further terms of the student's loss, on rollouts of its own: options by registered name.
    objectives: dict[str, Any] = {}
    #: The rollouts of `objectives`.
    rollout: RolloutConfig = RolloutConfig()

    @property
    def sees(self) -> str:
        """The context, the default filled in."""
        return self.context or ("clean" if self.of == "student-start" else "mixed")


class OdeRegression(WithObjectives):
    """`x_t - t * v(x_t, t)` is made the endpoint of the ODE through `x_t`, at the times of a step
    list: `mean((x_t - t * v - endpoint)**2)` (L_init of CausVid, arXiv 2412.07772, section 4.3,
    eq. 6; on clean context causal ODE distillation, Causal Forcing, arXiv 2602.02214, stage 2, and
    Causal-Forcing++, arXiv 2605.15141, eq. 1, counted in its LaTeX source)."""

    version = 1
    Config = OdeRegressionConfig

    def __init__(self, config: OdeRegressionConfig, zoo: Zoo) -> None:
        super().__init__(config, zoo)
        self.needs_data = self.objectives.needs_data
        #: See `salt_zoo.core.protocols.NeedsTrajectories`.
        self.stored_times = tuple(config.kept_times) if config.of == "dataset" else ()

    def roles(self) -> Mapping[str, NetworkSpec]:
        roles = {"student": NetworkSpec("student", learning_rate=self.config.learning_rate)}
        if self.config.of != "dataset":
            roles["teacher"] = NetworkSpec("teacher" if self.config.of == "teacher" else "student")
        return self.objectives.beside(roles)

    def train(self, step: TrainStep) -> Mapping[str, Tensor]:
        if step.role != "student":
            return self.train_objectives(step)
        states = self._states(step)
        x, t = self._draw(step, states)
        endpoint = states[:, -1]
        # clean blocks are context only; their frames have nothing to learn
        noisy = (t > 0).to(x.dtype)
        weight = noisy / noisy.sum().clamp(min=1)
        total = x.new_zeros(())
        for frames, v in self._velocities(step, x, t, endpoint):
            found = flow.x0_from_velocity(x[:, :, frames], v, t[:, frames])
            squared = (found - endpoint[:, :, frames]).square().mean(dim=(1, 3, 4))
            loss = (weight[:, frames] * squared).sum()
            step.backward(loss)
            total = total + loss.detach()
        return {"loss": total, **self.train_objectives(step)}

    def _states(self, step: TrainStep) -> Tensor:
        """Trajectories `[B, K, C, F, H, W]`: the dataset's, or made from the step's noise."""
        if step.batch.trajectory is not None:
            return fitting(step.batch, self.config.kept_times, step.latent_shape)
        if self.config.of == "dataset":
            raise ZooError(
                "method.of: dataset: the dataset has no trajectories; choose the dataset "
                "'trajectories', or method.of: teacher to make them while training"
            )
        return draw_trajectories(
            self.config,
            self.config.of,
            step.networks["teacher"],
            step.rng,
            step.batch.condition,
            step.batch.unconditional,
            self.config.guidance_scale,
            step.blocks,
            step.latent_shape,
        )

    def _draw(self, step: TrainStep, states: Tensor) -> tuple[Tensor, Tensor]:
        """A state of an independent time for every block: `[B, C, F, H, W]`, and times `[B, F]`."""
        parts = step.blocks.split(states.shape[3])
        times = torch.tensor([*self.config.kept_times, 0.0], device=states.device)
        clean = self.config.sees == "mixed" and len(parts) > 1
        rows = torch.arange(len(states), device=states.device)
        x, t = [], []
        for block, frames in enumerate(parts):
            drawn = step.rng.randint(len(times) if clean else len(times) - 1, "step", block)
            k = send(torch.tensor(drawn), states.device)
            x.append(states[rows, k][:, :, frames])
            t.append(repeat(times[k], "b -> b f", f=frames.stop - frames.start))
        return torch.cat(x, dim=2), torch.cat(t, dim=1)

    def _velocities(
        self, step: TrainStep, x: Tensor, t: Tensor, endpoint: Tensor
    ) -> Iterable[tuple[slice, Tensor]]:
        student, condition = step.networks["student"], step.batch.condition
        if self.config.sees == "clean":
            return forward_teacher_forced(student, x, t, endpoint, condition, step.blocks)
        return forward_block_causal(student, x, t, condition, step.blocks)
