"""Is the cache a condition whose quality depends on how it was made? Two metrics of any network.

Both make the same videos, from the same noise, with few and with many steps, and compare the
memories before the last block, or what the last block becomes on either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import ExitStep, Sampler
from salt_zoo.core.protocols import ComparableMemory, Direction, Memory, MetricDefaults, MetricKind
from salt_zoo.evaluation.videos import Videos
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.sampler import commit, denoise, initial_noise, renoise_from


class CacheDiagnosticConfig(StrictModel):
    """Options of `cache-sensitivity`, and of `cache-distance` with one more."""

    #: Steps of the memory that is looked at.
    steps: Annotated[int, Field(ge=1, le=10_000)] = 2
    #: Steps of the memory that it is compared with.
    reference: Annotated[int, Field(ge=1, le=10_000)] = 8
    #: Along the velocity nothing but the number of steps differs; fresh noise would change what
    #: the videos show, too.
    sampler: Sampler = "ode"
    #: Shift s of the times, `s t / (1 + (s - 1) t)`.
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    #: Videos measured at a time.
    batch_size: Annotated[int, Field(ge=1)] = 32


class CacheDistanceConfig(CacheDiagnosticConfig):
    """Options of `cache-distance`."""

    #: The layer that is looked at, counted from 0, or from the last one with -1, -2, ...; null is
    #: the mean over all.
    layer: int | None = None


class _CacheDiagnostic(MetricDefaults):
    """What both have in common: memories made by different numbers of steps, from equal noise.

    NaN rows for networks without a memory.
    """

    version = 1
    Config: type[CacheDiagnosticConfig] = CacheDiagnosticConfig
    direction: Direction = "lower"
    #: A collapsed student's memories do not differ.
    kind: MetricKind = "diagnostic"
    bounds = (0.0, None)
    mean = True

    def __init__(self, config: CacheDiagnosticConfig, zoo: Zoo) -> None:
        self.config = config
        self.own_steps, self.own_sampler = config.reference, config.sampler

    def measure(self, videos: Videos) -> Tensor:
        network, backbone = videos.network, videos.backbone
        if backbone is None or backbone.blocks(network).new_memory is None:
            return torch.full((len(videos.prompts),), float("nan"))
        rows, size = list(videos.rng.rows), self.config.batch_size
        found = [
            self.compare(Walker(videos, rows, range(i, min(i + size, len(rows))), self.config))
            for i in range(0, len(rows), size)
        ]
        return torch.cat(found)

    def compare(self, walker: Walker) -> Tensor:
        raise NotImplementedError

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())


class Walker:
    """Some videos of one network, with their noise."""

    def __init__(
        self,
        videos: Videos,
        rows: Sequence[int],
        places: range,
        config: CacheDiagnosticConfig,
    ) -> None:
        backbone = videos.backbone
        assert backbone is not None
        self.network, self.config = videos.network, config
        self.rng: KeyedRNG = videos.rng.for_rows([rows[place] for place in places])
        self.blocks, self.shape = backbone.blocks(videos.network), backbone.latent_shape
        self.condition = videos.condition(places)
        self.noise = initial_noise(self.rng, self.blocks, self.shape)
        self.parts = self.blocks.split(self.shape[1])
        self.renoise = renoise_from(self.rng, self.blocks, self.shape)

    def memory_before_last(self, steps: int) -> Memory:
        """The memory of all blocks but the last, each made with `steps` steps."""
        memory = self.blocks.memory(self.network, self.noise)
        assert memory is not None
        for block in range(len(self.parts) - 1):
            commit(self.network, self.block(block, steps, memory), self.blocks, self.renoise)
        return memory

    def block(self, block: int, steps: int, memory: Memory) -> ExitStep:
        """The last step of one block, given a memory."""
        frames = self.parts[block]
        walked = denoise(
            self.network,
            self.noise[:, :, frames],
            self.condition,
            flow.step_list(steps, self.config.timestep_shift),
            block=block,
            frames=frames,
            memory=memory,
            renoise=self.renoise,
            sampler=self.config.sampler,
        )
        *_, last = walked
        return last


class CacheDistance(_CacheDiagnostic):
    """Relative L2 distance of keys and values made by few steps to those made by many, of one layer
    or the mean over all; what the paper calls the quality of a cache (arXiv 2604.03118).

    NaN rows for memories without a `distance`.

    Raises:
        ZooError: the network has no such layer.
    """

    Config = CacheDistanceConfig

    def __init__(self, config: CacheDistanceConfig, zoo: Zoo) -> None:
        super().__init__(config, zoo)
        self.layer = config.layer

    def compare(self, walker: Walker) -> Tensor:
        few: Any = walker.memory_before_last(self.config.steps)
        many: Any = walker.memory_before_last(self.config.reference)
        if not isinstance(few, ComparableMemory):
            return torch.full((len(walker.noise),), float("nan"))
        layers: Tensor = few.distance(many)
        layer = self.layer
        if layer is None:
            return layers.mean(dim=1)
        count = layers.shape[1]
        if not -count <= layer < count:
            raise ZooError(f"cache-distance.layer: {layer} is not one of 0 to {count - 1}")
        return layers[:, layer]


class CacheSensitivity(_CacheDiagnostic):
    """Relative L2 change of the last block, made by many steps from the same noise, when the memory
    was made by few steps instead of many."""

    def compare(self, walker: Walker) -> Tensor:
        last, steps = len(walker.parts) - 1, self.config.reference
        made = [
            walker.block(last, steps, walker.memory_before_last(k)).x0.flatten(1)
            for k in (self.config.steps, steps)
        ]
        return (made[0] - made[1]).norm(dim=1) / made[1].norm(dim=1).clamp(min=1e-12)
