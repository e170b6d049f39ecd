"""Measuring a network: generate videos for fixed prompts and noise, and score every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core import first_frame
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.first_frame import FirstFrames
from salt_zoo.core.networks.condition import encode
from salt_zoo.core.protocols import Backbone, Condition, Dataset, Metric
from salt_zoo.plugin.isolation.checked_metric import CheckedMetric
from salt_zoo.rollout.generate import SamplingConfig, generate


@dataclass(frozen=True)
class Videos:
    """What a metric may look at.

    Attributes:
        pixels: `[N, channels, frames, height, width]`, nominally in [0, 1], not clamped.
        prompts: what each video was asked to show.
        rng: the rows' random streams, for metrics that need noise of their own.
        network, backbone, sampling: what made the videos; None for real ones.
        first_frame: the frame of a longer video with which these clips of it begin.
        images: the first frames that the videos go on from, by place; None for real videos and for
            a backbone that generates from prompts alone.
    """

    pixels: Tensor
    prompts: Sequence[str]
    rng: KeyedRNG
    dataset: Dataset
    backbone: Backbone | None = None
    network: Any = None
    sampling: SamplingConfig | None = None
    first_frame: int = 0
    images: FirstFrames | None = None

    def condition(self, places: range) -> Condition:
        """What the network was told about some of the videos."""
        assert self.backbone is not None
        prompts = [self.prompts[place] for place in places]
        image = self.images(places) if self.images else {}
        return {**encode(self.backbone, prompts), **image}


def evaluation_prompts(
    dataset: Dataset, split: str, count: int, videos_per_prompt: int = 1
) -> list[str]:
    """`count` different prompts of a split in a fixed order, each `videos_per_prompt` times.

    Fewer where the split has fewer. The first `count` rows do not depend on `videos_per_prompt`.
    """
    known = dataset.prompts(split)  # type: ignore[arg-type]
    order = torch.randperm(len(known), generator=KeyedRNG(0).generator("evaluation prompts", split))
    return [known[i] for i in order.tolist()[:count]] * videos_per_prompt


def evaluation_draws(seed: int, split: str, count: int, device: torch.device | str) -> KeyedRNG:
    """The streams that every arm of a study is evaluated with: equal noise for equal rows."""
    return KeyedRNG(seed, ("evaluation", split), range(count), device)


def make_videos(
    network: Any,
    backbone: Backbone,
    dataset: Dataset,
    prompts: Sequence[str],
    rng: KeyedRNG,
    sampling: SamplingConfig,
    batch_size: int = 32,
    frames: int | None = None,
    *,
    split: str,
) -> Videos:
    """Generate and decode one video a prompt; `frames` are latent ones, as in `generate`.

    A backbone that generates from first frames is given those of the real videos of `split`.
    """
    images = first_frame.of_prompts(backbone, dataset, prompts, rng, split)
    latents = generate(network, backbone, prompts, rng, sampling, batch_size, frames, images)
    with torch.inference_mode():
        parts = [backbone.decode_video(part).float().cpu() for part in latents.split(batch_size)]
        pixels = torch.cat(parts)
    return Videos(pixels, prompts, rng, dataset, backbone, network, sampling, images=images)


def measure(metrics: Mapping[str, Metric], videos: Videos) -> dict[str, Tensor]:
    """The rows of every metric, on the CPU: `[N]` scores or `[N, D]` features.

    Raises:
        ForeignError: a metric fails; see `CheckedMetric.measure`.
    """
    with torch.inference_mode():
        return {name: _checked(name, metric).measure(videos) for name, metric in metrics.items()}


def _checked(name: str, metric: Metric) -> CheckedMetric:
    if isinstance(metric, CheckedMetric):
        return metric
    return CheckedMetric(metric, f"metric {name!r}")
