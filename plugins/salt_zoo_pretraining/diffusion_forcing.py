"""Flow matching on real latents, every block given the blocks before it as noisy as they are."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from salt_zoo.core.protocols import Condition, TrainStep
from salt_zoo_pretraining.flow_matching import FlowMatching, FlowMatchingConfig
from salt_zoo_pretraining.noisy_past import forward_block_causal


class DiffusionForcing(FlowMatching):
    """Flow matching with diffusion forcing (arXiv 2407.01392), as CausVid (2412.07772) uses it.

    On a bidirectional backbone it is bitwise `teacher-forcing`: plain flow matching.
    """

    Config = FlowMatchingConfig

    def velocities(
        self, step: TrainStep, x: Tensor, t: Tensor, x0: Tensor, condition: Condition
    ) -> Iterable[tuple[slice, Tensor]]:
        return forward_block_causal(step.networks["student"], x, t, condition, step.blocks)
