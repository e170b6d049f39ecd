"""Long videos clip by clip: where clips lie, and that batches do not matter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.evaluate.long_video import LongMeasurer, clips_of
from benchmarks.study.schema import LongConfig
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.evaluation.videos import Videos, make_videos
from salt_zoo.plugin.isolation.checked_metric import CheckedMetric
from salt_zoo.rollout.generate import SamplingConfig
from tests.blocks.plugin import ToyBackbone, ToyData


class First:
    """The mean of each clip, with the frame that it begins with."""

    direction, own_steps = "higher", None

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())

    def measure(self, videos: Videos) -> Tensor:
        means = videos.pixels.mean(dim=(1, 2, 3, 4))
        return torch.stack([means, torch.full_like(means, float(videos.first_frame))], dim=1)


class Within:
    """How far each video is from the mean of its prompt's, as metrics of diversity are."""

    direction, own_steps = "higher", None

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())

    def measure(self, videos: Videos) -> Tensor:
        names = list(videos.prompts)
        own = [[i for i, name in enumerate(names) if name == prompt] for prompt in names]
        flat = videos.pixels.flatten(1)
        return torch.stack([(flat[i] - flat[own[i]].mean(0)).norm() for i in range(len(names))])


class Whole(First):
    whole_video = True


class Own(First):
    own_steps = 4


def measurer(batch_size: int, **changes: Any) -> LongMeasurer:
    config = LongConfig(**{"lengths": [1, 3], "prompts": 2, **changes})
    made = {"first": First(), "within": Within(), "whole": Whole(), "own": Own()}
    metrics: Any = {name: CheckedMetric(metric, name) for name, metric in made.items()}
    data, backbone = ToyData(None, None), ToyBackbone(None, None)
    return LongMeasurer(config, "test", metrics, data, backbone, batch_size)


def test_a_clip_ends_at_every_block():
    clips = clips_of(ToyBackbone(None, None), [3, 1])
    assert clips.stops == [6, 8, 10, 12, 14, 16, 18] and clips.frames == 6
    assert clips.ends == {"1": 0, "3": 6} and (clips.latents, clips.pixels) == (18, 18)


def test_clips_are_counted_in_frames_of_pixels():
    """A causal VAE makes 4 (n - 1) + 1 frames of n; a first block of one frame; no block ends at
    twice the training's 7 latent frames."""
    backbone: Any = SimpleNamespace(
        latent_shape=(1, 7, 1, 1),
        device="cpu",
        blocks=lambda network=None: Blocks(3, first=1),
        decode_video=lambda latents: torch.zeros(1, 3, 4 * latents.shape[2] - 3, 8, 8),
    )
    clips = clips_of(backbone, [1, 2])
    assert clips.latents == 16 and clips.pixels == 61 and clips.frames == 25
    assert clips.stops == [25, 37, 49, 61] and clips.ends == {"1": 0, "2": 3}


@pytest.mark.parametrize("each", [1, 3])
def test_batches_change_nothing(each):
    backbone = ToyBackbone(None, None)
    network, sampling = backbone.network("student"), SamplingConfig(steps=2)
    whole = measurer(32, videos_per_prompt=each).sampled(network, sampling)
    parts = measurer(each, videos_per_prompt=each).sampled(network, sampling)
    assert set(whole.rows) == {"first", "within"}
    for name, rows in whole.rows.items():
        assert rows.shape[:2] == (7, 2 * each)
        assert parts.rows[name] == pytest.approx(rows, abs=1e-6)
    assert (whole.pixels == parts.pixels).all() and whole.pixels.shape == (2, 2, 18, 2, 2)


def test_clips_are_those_of_the_long_video_and_begin_as_the_short_one():
    backbone = ToyBackbone(None, None)
    network, sampling = backbone.network("student"), SamplingConfig(steps=2)
    long = measurer(32)
    found = long.sampled(network, sampling)
    given = network, backbone, long.dataset, long.prompts, long.rng, sampling
    short = make_videos(*given, split="test")
    video = make_videos(*given, 32, 18, split="test")
    assert torch.equal(video.pixels[:, :, :6], short.pixels)
    for clip, stop in enumerate(found.stops):
        wanted = video.pixels[:, :, stop - 6 : stop].mean(dim=(1, 2, 3, 4))
        assert found.rows["first"][clip, :, 0] == pytest.approx(wanted.numpy(), abs=1e-6)
        assert (found.rows["first"][clip, :, 1] == stop - 6).all()


def test_real_videos_where_the_data_has_long_ones():
    found = measurer(32).real()
    assert found is not None and found.rows["first"].shape == (7, 2, 2)
    long = measurer(32)
    long.dataset = SimpleNamespace(real=lambda *_: None)  # type: ignore[assignment]
    assert long.real() is None
