"""The semigroup defect as a metric: any network can be measured by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.networks.blocks import Sampler
from salt_zoo.core.protocols import Direction, MetricDefaults, MetricKind
from salt_zoo.evaluation.videos import Videos
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.sampler import full_time, initial_noise, iter_rollout, renoise_from
from salt_zoo_dmd.semigroup import choices, local_defect


class SemigroupDefectConfig(StrictModel):
    """Options of `semigroup-defect`."""

    #: Steps of the rollouts.
    steps: Annotated[int, Field(ge=2, le=10_000)] = 8
    #: Equal parts into which the step list is cut; long steps end at their starts, or at 0.
    num_segments: Annotated[int, Field(ge=1)] = 4
    #: Shift s of the times, `s t / (1 + (s - 1) t)`.
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    sampler: Sampler = "sde"
    #: Videos measured at a time.
    batch_size: Annotated[int, Field(ge=1)] = 32


class SemigroupDefect(MetricDefaults):
    """Displacement-normalised local defect on the network's own rollouts (arXiv 2604.03118).

    Per video the mean over all steps of the list but the last and over all (end, middle) times that
    training would draw there; NaN rows for videos that no network made. It does not depend on the
    number of steps that the videos were made with.
    """

    version = 1
    Config = SemigroupDefectConfig
    direction: Direction = "lower"
    #: A collapsed student has no defect.
    kind: MetricKind = "diagnostic"
    bounds = (0.0, None)
    mean = True

    def __init__(self, config: SemigroupDefectConfig, zoo: Zoo) -> None:
        self.config = config
        self.own_steps, self.own_sampler = config.steps, config.sampler

    def measure(self, videos: Videos) -> Tensor:
        if videos.network is None or videos.backbone is None:
            return torch.full((len(videos.prompts),), float("nan"))
        rows = list(videos.rng.rows)
        size = self.config.batch_size
        return torch.cat(
            [
                self._batch(videos, rows[i : i + size], range(i, min(i + size, len(rows))))
                for i in range(0, len(rows), size)
            ]
        )

    def _batch(self, videos: Videos, rows: Sequence[int], places: range) -> Tensor:
        backbone, network = videos.backbone, videos.network
        assert backbone is not None
        rng = videos.rng.for_rows(rows)
        blocks, shape = backbone.blocks(network), backbone.latent_shape
        condition = videos.condition(places)
        times = flow.step_list(self.config.steps, self.config.timestep_shift)
        found = []
        steps = iter_rollout(
            network,
            initial_noise(rng, blocks, shape),
            condition,
            times,
            blocks=blocks,
            renoise=renoise_from(rng, blocks, shape),
            sampler=self.config.sampler,
            every_step=True,
        )
        for step in steps:
            for end, middles in choices(times, step.step, self.config.num_segments):
                for middle in middles:
                    x = flow.euler_step(step.x, step.v, step.t, middle)
                    v = network(x, full_time(middle, x), condition, step.memory)
                    found.append(local_defect(step.v, v, step.t, middle, end))
        return torch.stack(found).mean(dim=0)

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())
