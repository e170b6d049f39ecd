"""Measuring videos longer than those of the training, clip by clip: does quality last?

Clips have the training's length, so that metrics mean what they mean elsewhere, and one ends at
every block. Videos are made, decoded and measured a batch of prompts at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluate.cells import Cell
from benchmarks.evaluate.records import LongVideoResult
from benchmarks.study.schema import LongConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.protocols import Backbone, Dataset
from salt_zoo.evaluation.videos import (
    Videos,
    evaluation_draws,
    evaluation_prompts,
    make_videos,
    measure,
)
from salt_zoo.plugin.isolation.checked_metric import CheckedMetric
from salt_zoo.plugin.isolation.foreign import ForeignError, show_traceback
from salt_zoo.rollout.generate import SamplingConfig


@dataclass(frozen=True)
class Clips:
    """The clips of a long video: `latents` and `pixels` are the whole video's frames."""

    latents: int
    pixels: int
    frames: int
    stops: list[int]
    ends: dict[str, int]


def clips_of(backbone: Backbone, lengths: Sequence[int]) -> Clips:
    """A clip for every block from the training's length on; a length that no block ends goes on
    to the end of its last block."""
    blocks, trained = backbone.blocks(), backbone.latent_shape[1]
    stops = [0]
    while stops[-1] < trained * max(lengths):
        stops.append(stops[-1] + blocks.size(len(stops) - 1, trained))
    count = _pixel_frames(backbone)
    kept = [stop for stop in stops if stop >= trained]
    ends = {
        str(length): next(i for i, stop in enumerate(kept) if stop >= trained * length)
        for length in sorted(lengths)
    }
    return Clips(
        latents=kept[-1],
        pixels=count(kept[-1]),
        frames=count(trained),
        stops=[count(stop) for stop in kept],
        ends=ends,
    )


def _pixel_frames(backbone: Backbone) -> Any:
    """The function from latent frames to the frames that they decode to.

    It is linear for every VAE of video: a causal one makes `4 (n - 1) + 1` of n.
    """
    channels, trained, *size = backbone.latent_shape

    def decoded(frames: int) -> int:
        latents = torch.zeros(1, channels, frames, *size, device=backbone.device)
        with torch.inference_mode():
            return int(backbone.decode_video(latents).shape[2])

    base, other = decoded(1), max(trained, 2)
    stride = (decoded(other) - base) // (other - 1)
    return lambda frames: base + stride * (frames - 1)


class LongMeasurer:
    """Measures long videos of a study's first prompts, with the noise that its short ones have."""

    def __init__(
        self,
        config: LongConfig | Cell,
        split: str,
        metrics: Mapping[str, CheckedMetric],
        dataset: Dataset,
        backbone: Backbone,
        batch_size: int,
    ) -> None:
        self.config, self.split, self.dataset, self.backbone = config, split, dataset, backbone
        self.metrics = {name: metric for name, metric in metrics.items() if metric.has_clips}
        self.prompts = evaluation_prompts(dataset, split, config.prompts, config.videos_per_prompt)
        self.rng = evaluation_draws(0, split, len(self.prompts), backbone.device)
        self.clips = clips_of(backbone, config.lengths)
        self.batch_size = batch_size
        #: Metrics that could not be measured, by label, each with a line that says why.
        self.broken: dict[str, str] = {}

    def sampled(self, network: Any, sampling: SamplingConfig) -> LongVideoResult:
        """Long videos of a network that goes block by block."""

        def make(prompts: Sequence[str], rng: KeyedRNG) -> Videos:
            return make_videos(
                network,
                self.backbone,
                self.dataset,
                prompts,
                rng,
                sampling,
                self.batch_size,
                self.clips.latents,
                split=self.split,
            )

        return self._measure(make)

    def real(self) -> LongVideoResult | None:
        """Real videos, where the data knows any that are so long."""
        rng, frames = self.rng.at("real").for_rows([0]), self.clips.pixels
        if self.dataset.real(self.prompts[:1], rng, self.split, frames) is None:
            return None

        def make(prompts: Sequence[str], rng: KeyedRNG) -> Videos:
            pixels = self.dataset.real(prompts, rng.at("real"), self.split, frames)
            assert pixels is not None
            return Videos(pixels, prompts, rng, self.dataset)

        return self._measure(make)

    def _measure(self, make: Any) -> LongVideoResult:
        clips, order = self.clips, []
        shown: dict[int, Tensor] = {}
        parts: list[list[dict[str, Tensor]]] = []
        for rows in self._batches():
            videos = make([self.prompts[row] for row in rows], self.rng.for_rows(rows))
            if videos.pixels.shape[2] != clips.pixels:
                raise ZooError(
                    f"long videos have {videos.pixels.shape[2]} frames, not {clips.pixels}: the "
                    "backbone's decode_video does not make equally many of every further latent"
                )
            parts.append([self._clip(videos, stop) for stop in clips.stops])
            order += rows
            for row, video in zip(rows, videos.pixels, strict=True):
                if row < self.config.shown:
                    shown[row] = (video.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
        back = torch.tensor(order).argsort()
        found = {
            name: torch.stack(
                [
                    torch.cat([part[clip][name] for part in parts])[back]
                    for clip in range(len(clips.stops))
                ]
            ).numpy()
            for name in self.metrics
            if name not in self.broken
        }
        pixels = np.stack([shown[row].numpy() for row in sorted(shown)])
        return LongVideoResult(clips.frames, clips.stops, clips.ends, found, pixels)

    def _clip(self, videos: Videos, stop: int) -> dict[str, Tensor]:
        first = stop - self.clips.frames
        clip = Videos(
            videos.pixels[:, :, first:stop],
            videos.prompts,
            videos.rng,
            videos.dataset,
            videos.backbone,
            videos.network,
            videos.sampling,
            first,
            videos.images,
        )
        found: dict[str, Tensor] = {}
        for name, metric in self.metrics.items():
            if name in self.broken:
                continue
            try:
                found |= measure({name: metric}, clip)
            except ForeignError as error:  # others can be measured
                show_traceback(error)
                self.broken[name] = str(error)
        return found

    def _batches(self) -> list[list[int]]:
        """Rows in batches that keep the videos of a prompt together, for metrics of diversity."""
        each = self.config.videos_per_prompt
        prompts = len(self.prompts) // each
        step = max(1, self.batch_size // each)
        return [
            [
                video * prompts + place
                for video in range(each)
                for place in range(first, min(first + step, prompts))
            ]
            for first in range(0, prompts, step)
        ]
