"""Scoring one network, or real videos, on a study's prompts and noise."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.long_rollouts import LongMeasurer
from benchmarks.records import Measured
from benchmarks.study import EvaluationConfig
from salt_zoo.errors import ZooError
from salt_zoo.evaluation import (
    Videos,
    evaluation_draws,
    evaluation_prompts,
    make_videos,
    measure,
)
from salt_zoo.plugins import Zoo
from salt_zoo.rollout import Sampler
from salt_zoo.run import Resolved, make_metrics
from salt_zoo.sampling import SamplingConfig


class Measurer:
    """Measures under the name of one arm (and seed), with the same prompts and noise for all."""

    def __init__(
        self,
        label: str,
        seed: int | None,
        resolved: Resolved,
        evaluation: EvaluationConfig,
        backbone: Any,
        zoo: Zoo,
    ) -> None:
        self.label, self.seed = label, seed
        self.resolved, self.evaluation, self.backbone = resolved, evaluation, backbone
        self.dataset = zoo.datasets.create(resolved.config.dataset["name"], resolved.dataset, zoo)
        self.metrics = make_metrics(zoo, evaluation.metrics)
        self.prompts = evaluation_prompts(
            self.dataset, evaluation.split, evaluation.prompts, evaluation.videos_per_prompt
        )
        count = len(self.prompts)
        self.draws = evaluation_draws(0, evaluation.split, count, backbone.device)
        self.zoo = zoo

    @functools.cached_property
    def long(self) -> LongMeasurer | None:
        """What measures long videos, if the study asks for them."""
        evaluation = self.evaluation
        if evaluation.long is None:
            return None
        names = evaluation.long.metrics
        return LongMeasurer(
            evaluation.long,
            evaluation.split,
            self.metrics if names is None else make_metrics(self.zoo, names),
            self.dataset,
            self.backbone,
            evaluation.batch_size,
        )

    def grid(self, network: Any, guidance_scale: float = 1.0, own: bool = True) -> list[Measured]:
        """Every NFE with every sampler; with `own`, the metrics that make rollouts of their own."""
        found = [
            self.sampled(network, nfe, sampler, guidance_scale)
            for nfe in self.evaluation.nfe
            for sampler in self.evaluation.samplers
        ]
        nothing = torch.zeros(0, 1, 1, 1, 1)
        videos = Videos(nothing, self.prompts, self.draws, self.dataset, self.backbone, network)
        for name, metric in self.metrics.items():
            if own and metric.own_steps is not None:
                _merge(found, self._row(videos, [name], metric.own_steps, "sde", {}))
        if self.long and self.backbone.blocks(network).frames is not None:
            for nfe in self.long.config.nfe:
                sampling = self._sampling(nfe, self.long.config.sampler, guidance_scale)
                extra = self._row(videos, [], nfe, sampling.sampler, {})
                _merge(found, replace(extra, long=self.long.sampled(network, sampling)))
        return found

    def sampled(self, network: Any, nfe: int, sampler: Sampler, guidance_scale: float) -> Measured:
        """One sampling setting of a network."""
        sampling = self._sampling(nfe, sampler, guidance_scale)
        videos = make_videos(
            network,
            self.backbone,
            self.dataset,
            self.prompts,
            self.draws,
            sampling,
            self.evaluation.batch_size,
        )
        blocks = len(self.backbone.blocks(network).split(self.backbone.latent_shape[1]))
        return self._row(videos, self._shared(), nfe, sampler, sampling.passes(blocks))

    def real(self) -> Measured:
        """Real videos of the same prompts."""
        split = self.evaluation.split
        pixels = self.dataset.real(self.prompts, self.draws.at("real"), split)
        if pixels is None:
            name = self.resolved.config.dataset["name"]
            raise ZooError(f"dataset {name!r} has no real videos to compare with")
        videos = Videos(pixels, self.prompts, self.draws, self.dataset)
        found = self._row(videos, self._shared(), None, None, {})
        return replace(found, long=self.long.real()) if self.long else found

    def _sampling(self, nfe: int, sampler: Sampler, guidance_scale: float) -> SamplingConfig:
        return SamplingConfig(
            steps=nfe,
            sampler=sampler,
            timestep_shift=self.evaluation.timestep_shift,
            guidance_scale=guidance_scale,
        )

    def _shared(self) -> list[str]:
        return [name for name, metric in self.metrics.items() if metric.own_steps is None]

    def _row(
        self,
        videos: Videos,
        names: Iterable[str],
        nfe: int | None,
        sampler: str | None,
        passes: dict[str, int],
    ) -> Measured:
        chosen = {name: self.metrics[name] for name in names}
        rows = {name: found.numpy() for name, found in measure(chosen, videos).items()}
        shown = videos.pixels[: self.evaluation.shown].clamp(0, 1)
        config = self.resolved.config
        return Measured(
            arm=self.label,
            method=config.method["name"] if self.seed is not None else self.label,
            backbone=config.backbone["name"],
            memory=memory_label(getattr(self.resolved.backbone, "memory", None)),
            seed=self.seed,
            nfe=nfe,
            sampler=sampler,
            passes=passes,
            rows=rows,
            pixels=np.asarray(shown * 255 + 0.5).astype(np.uint8),
        )


def _merge(found: list[Measured], extra: Measured) -> None:
    """Add to the row of the same setting, or as a row of its own: one row for each setting."""
    for place, one in enumerate(found):
        if (one.nfe, one.sampler) == (extra.nfe, extra.sampler):
            rows = {**one.rows, **extra.rows}
            found[place] = replace(one, rows=rows, long=extra.long or one.long)
            return
    found.append(extra)


def memory_label(memory: Any) -> str | None:
    """A memory's name with its numbers, as in `window-9-3`, for tables; None without one."""
    if memory is None:
        return None
    sizes = [str(memory[key]) for key in ("frames", "sink") if key in memory]
    return "-".join([str(memory["name"]), *sizes])
