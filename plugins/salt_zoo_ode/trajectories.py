"""Trajectories of a flow model: the states that its ODE passes on the way from noise to a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field, model_serializer, model_validator
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel, said
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.guidance import Guided
from salt_zoo.core.networks.blocks import Blocks, Renoise
from salt_zoo.core.protocols import Condition, VelocityNetwork
from salt_zoo.rollout.sampler import initial_noise, iter_rollout, renoise_from

#: Times nearer to each other than this are the same one.
SAME_TIME = 1e-6


def _falling(times: tuple[float, ...]) -> tuple[float, ...]:
    try:
        return tuple(flow.check_times(times))
    except ValueError:
        raise said(
            f"times must fall strictly within (0, 1], not {list(times)}; the clean end, at 0, is "
            "not named, and published timesteps are divided by 1000"
        ) from None


class TrajectoryConfig(StrictModel):
    """Which states are kept, and of how exact an ODE."""

    #: Times of the student's step list, at which states are kept.
    steps: Annotated[int, Field(ge=1, le=10_000)] = 4
    #: Times of the kept states that no step list has, falling within (0, 1], in place of `steps`:
    #: `[1, 0.757, 0.522]` is CausVid's list. null is the step list.
    times: Annotated[tuple[float, ...], AfterValidator(_falling)] | None = None
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: Euler steps of the ODE, from 1 to 0 on a grid of the same shift. Times of the step list that
    #: are not on it are added, up to `steps - 1` (none for a multiple of `steps`).
    teacher_steps: Annotated[int, Field(ge=1, le=10_000)] = 50

    @model_validator(mode="after")
    def _one_list(self) -> TrajectoryConfig:
        if self.times is not None and "steps" in self.model_fields_set:
            raise said(
                f"steps: {self.steps} are times of a step list, and times names {len(self.times)}; "
                "leave one of them out"
            )
        return self

    @model_serializer(mode="wrap")
    def _stated(self, content: Any) -> dict[str, Any]:
        """With the one of `steps` and `times` that counts: without times a run is what it was
        before there were any."""
        unused = "times" if self.times is None else "steps"
        return {key: value for key, value in content(self).items() if key != unused}

    @property
    def kept_times(self) -> list[float]:
        """The falling times of the kept states; the endpoint, at 0, is not among them."""
        if self.times is not None:
            return list(self.times)
        return flow.step_list(self.steps, self.timestep_shift)

    @property
    def grid(self) -> list[float]:
        """The times at which the ODE evaluates its network; those of the kept states among them."""
        return with_times(flow.step_list(self.teacher_steps, self.timestep_shift), self.kept_times)


#: Whose trajectories: the teacher's, which denoises all frames at once (CausVid, arXiv 2412.07772,
#: section 4.3), or those of the flow model that the student starts from, block by block on its own
#: past (Causal Forcing, arXiv 2602.02214: a bidirectional path is no function of the causal
#: context, Lemma 3.2 and Proposition 3.3 as readers' notes number them).
Whose = Literal["teacher", "student-start"]


def with_times(grid: Sequence[float], times: Sequence[float]) -> list[float]:
    """All of `times` and the times of `grid` that are not among them, falling."""
    others = [g for g in grid if all(abs(g - t) > SAME_TIME for t in times)]
    return sorted([*times, *others], reverse=True)


@torch.no_grad()
def ode_states(
    network: VelocityNetwork,
    noise: Tensor,
    condition: Condition,
    times: Sequence[float],
    grid: Sequence[float],
    *,
    blocks: Blocks,
    renoise: Renoise,
) -> Tensor:
    """The states `[B, K, C, F, H, W]` of Euler's ODE at `times`, and its endpoint: K = times + 1.

    Args:
        noise: `[B, C, F, H, W]`, standard normal; where the ODE starts.
        times: falling times in (0, 1], all of them in `grid`.
        grid: falling times in (0, 1] at which the network is evaluated; the last step goes to 0.
        blocks: in which `network` generates: each block runs to its end before the next begins.
        renoise: for a memory of noised blocks (`Blocks.context_noise`); the ODE draws nothing.
    """
    times = list(times)
    if not set(times) <= set(grid):
        raise ValueError(f"times {times} are not all in the grid {list(grid)}")
    kept: list[list[Tensor]] = [[] for _ in range(len(times) + 1)]
    for exit in iter_rollout(
        network,
        noise,
        condition,
        grid,
        blocks=blocks,
        renoise=renoise,
        sampler="ode",
        every_step=True,
    ):
        if exit.t in times:
            kept[times.index(exit.t)].append(exit.x)
        if exit.step + 1 == len(grid):
            kept[-1].append(exit.x0)
    return torch.stack([torch.cat(parts, dim=2) for parts in kept], dim=1)


def draw_trajectories(
    config: TrajectoryConfig,
    whose: Whose,
    network: VelocityNetwork,
    rng: KeyedRNG,
    condition: Condition,
    unconditional: Condition,
    guidance_scale: float,
    blocks: Blocks,
    latent_shape: Sequence[int],
) -> Tensor:
    """Trajectories `[B, K, C, F, H, W]` from the initial noise of `draws`, as `config` says.

    Training and the recipe `trajectories` share this: equal draws give equal trajectories.

    Args:
        network: the teacher, or the flow model that the student starts from (`whose`).
        blocks: those of the student.
        latent_shape: C, F, H, W of one video.
    """
    if whose == "teacher":
        blocks = Blocks()
    return ode_states(
        Guided(network, unconditional, guidance_scale),
        initial_noise(rng, blocks, latent_shape),
        condition,
        config.kept_times,
        config.grid,
        blocks=blocks,
        renoise=renoise_from(rng, blocks, latent_shape),
    )
