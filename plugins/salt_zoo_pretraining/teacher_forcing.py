"""Flow matching on real latents, block by block, each block given the clean blocks before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor

from salt_zoo.core.protocols import Condition, TrainStep
from salt_zoo.rollout.forcing import forward_teacher_forced
from salt_zoo_pretraining.flow_matching import FlowMatching, FlowMatchingConfig


class TeacherForcingConfig(FlowMatchingConfig):
    """Options of `teacher-forcing`."""

    #: How blocks see the clean past: in one masked pass beside a clean copy, through which gradient
    #: flows (as published), or block by block from a memory without gradient (less memory; twice as
    #: fast on a CPU).
    past: Literal["masked", "cached"] = "masked"


class TeacherForcing(FlowMatching):
    """Flow matching with teacher forcing (arXiv 2602.02214)."""

    Config = TeacherForcingConfig

    def velocities(
        self, step: TrainStep, x: Tensor, t: Tensor, x0: Tensor, condition: Condition
    ) -> Iterable[tuple[slice, Tensor]]:
        masked = self.config.past == "masked"
        student = step.networks["student"]
        return forward_teacher_forced(student, x, t, x0, condition, step.blocks, masked=masked)
