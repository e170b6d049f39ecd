"""Flow matching on real latents, block by block, each block given the clean blocks before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor

from salt_zoo.core.protocols import Condition, Turn
from salt_zoo.rollout.forcing import given_clean_past
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
        self, turn: Turn, x: Tensor, t: Tensor, x0: Tensor, condition: Condition
    ) -> Iterable[tuple[slice, Tensor]]:
        masked = self.config.past == "masked"
        student = turn.networks["student"]
        return given_clean_past(student, x, t, x0, condition, turn.blocks, masked=masked)
