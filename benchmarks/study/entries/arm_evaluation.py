"""How the students of one arm are sampled, where that is not the study's way."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.flow import check_times
from salt_zoo.core.networks.blocks import Sampler
from salt_zoo.rollout.generate import SamplingConfig


class ArmEvaluation(StrictModel):
    """How one arm's students are sampled, where that differs from the study: `arms.X.evaluation`.

    An arm with a sampler of its own is sampled with that alone, and stands in the comparisons under
    every sampler of the study: each arm at its own setting, with as many steps.
    """

    sampler: Sampler | None = None
    timestep_shift: Annotated[float, Field(gt=0)] | None = None
    #: Other than 1 it doubles the passes, which are shown beside the NFE.
    guidance_scale: float | None = None
    #: By number of steps their times, falling within (0, 1]; the others are the study's.
    times: dict[Annotated[int, Field(ge=1)], list[float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> ArmEvaluation:
        for steps, times in self.times.items():
            if len(check_times(times)) != steps:
                raise ValueError(f"times.{steps}: {len(times)} times are not {steps} steps")
        return self

    def of(self, study: SamplingConfig) -> SamplingConfig:
        """The arm's own setting in place of one of the study's."""
        own: dict[str, Any] = {"sampler": self.sampler, "timestep_shift": self.timestep_shift}
        own |= {"guidance_scale": self.guidance_scale, "times": self.times.get(study.steps)}
        changes = {key: value for key, value in own.items() if value is not None}
        return study.model_copy(update=changes)

    def text(self, steps: int) -> str | None:
        """What is the arm's own, for tables: `ode, shift 3`; None if nothing is."""
        parts: list[str] = [self.sampler] if self.sampler else []
        parts += [f"shift {self.timestep_shift:g}"] if self.timestep_shift is not None else []
        parts += [f"guidance {self.guidance_scale:g}"] if self.guidance_scale is not None else []
        times = self.times.get(steps)
        parts += [f"times {' '.join(f'{t:g}' for t in times)}"] if times else []
        return ", ".join(parts) or None
