"""Scoring one network, or real videos, on a study's prompts and noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

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

    def grid(self, network: Any, guidance_scale: float = 1.0, own: bool = True) -> list[Measured]:
        """Every NFE with every sampler; with `own`, the metrics that make rollouts of their own."""
        found = [
            self.sampled(network, nfe, sampler, guidance_scale)
            for nfe in self.evaluation.nfe
            for sampler in self.evaluation.samplers
        ]
        for name, metric in self.metrics.items():
            if not own or metric.own_steps is None:
                continue
            nothing = torch.zeros(0, 1, 1, 1, 1)
            videos = Videos(nothing, self.prompts, self.draws, self.dataset, self.backbone, network)
            extra = self._row(videos, [name], metric.own_steps, "sde", {})
            place = [i for i, m in enumerate(found) if (m.nfe, m.sampler) == (extra.nfe, "sde")]
            if place:  # one row for each setting
                first = found[place[0]]
                found[place[0]] = replace(first, rows={**first.rows, **extra.rows})
            else:
                found.append(extra)
        return found

    def sampled(self, network: Any, nfe: int, sampler: Sampler, guidance_scale: float) -> Measured:
        """One sampling setting of a network."""
        sampling = SamplingConfig(
            steps=nfe,
            sampler=sampler,
            timestep_shift=self.evaluation.timestep_shift,
            guidance_scale=guidance_scale,
        )
        videos = make_videos(
            network,
            self.backbone,
            self.dataset,
            self.prompts,
            self.draws,
            sampling,
            self.evaluation.batch_size,
        )
        blocks = len(self.backbone.blocks().split(self.backbone.latent_shape[1]))
        return self._row(videos, self._shared(), nfe, sampler, sampling.passes(blocks))

    def real(self) -> Measured:
        """Real videos of the same prompts."""
        split = self.evaluation.split
        pixels = self.dataset.real(self.prompts, self.draws.at("real"), split)
        if pixels is None:
            name = self.resolved.config.dataset["name"]
            raise ZooError(f"dataset {name!r} has no real videos to compare with")
        videos = Videos(pixels, self.prompts, self.draws, self.dataset)
        return self._row(videos, self._shared(), None, None, {})

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
            memory=getattr(self.resolved.backbone, "memory", None),
            seed=self.seed,
            nfe=nfe,
            sampler=sampler,
            passes=passes,
            rows=rows,
            pixels=np.asarray(shown * 255 + 0.5).astype(np.uint8),
        )
