"""What the metrics compare with: statistics of real training videos, shipped beside the judge."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo_digits import measures
from salt_zoo_digits.data import Digits
from salt_zoo_digits.frechet import Gaussian
from salt_zoo_digits.judge import JUDGE, Judge, judge_video

#: Made by `salt-zoo pretrain digits-judge`: real videos and their judgement take seconds.
FILE = "reference.safetensors"

#: Real training videos behind the statistics, and how many of them diversity compares.
VIDEOS, COMPARED = 1536, 768


@dataclass(frozen=True)
class Features:
    """Features of real videos: each one's standard deviation `[D]`, and what they are divided by
    it, as a Gaussian."""

    scale: Tensor
    gaussian: Gaussian

    @classmethod
    def of(cls, rows: Tensor) -> Features:
        """Fitted to features `[N, D]`."""
        scale = rows.std(dim=0)
        return cls(scale, Gaussian.of(rows / scale))


@dataclass(frozen=True)
class Reference:
    """Statistics of real videos.

    Attributes:
        appearance: the judge's features, averaged over frames.
        motion: the centroids' steps between frames.
        laplacian_energy: the mean over videos.
        distance_within_prompt: the mean between videos of one prompt.
    """

    appearance: Features
    motion: Features
    laplacian_energy: Tensor
    distance_within_prompt: Tensor

    @classmethod
    def of(cls, pixels: Tensor, prompts: Sequence[str], judge: Judge) -> Reference:
        """Of videos `[N, 1, F, 16, 16]`."""
        return cls(
            Features.of(judge_video(judge, pixels)[0].mean(dim=1)),
            Features.of(measures.centroid_velocities(pixels)),
            measures.laplacian_energy(pixels).mean(),
            measures.distance_within_prompt(pixels[:COMPARED], prompts[:COMPARED]).nanmean(),
        )

    def save(self, path: Path) -> None:
        tensors = {
            "laplacian_energy": self.laplacian_energy,
            "distance_within_prompt": self.distance_within_prompt,
        }
        for name, features in (("appearance", self.appearance), ("motion", self.motion)):
            tensors[f"{name}.scale"] = features.scale
            tensors[f"{name}.mean"] = features.gaussian.mean
            tensors[f"{name}.covariance"] = features.gaussian.covariance
        safetensors.torch.save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Reference:
        tensors = safetensors.torch.load_file(path)

        def features(name: str) -> Features:
            mean, covariance = tensors[f"{name}.mean"], tensors[f"{name}.covariance"]
            return Features(tensors[f"{name}.scale"], Gaussian.with_moments(mean, covariance))

        return cls(
            features("appearance"),
            features("motion"),
            tensors["laplacian_energy"],
            tensors["distance_within_prompt"],
        )


@functools.cache
def shipped_reference() -> Reference:
    return Reference.load(JUDGE / FILE)


def real_videos() -> tuple[Tensor, list[str]]:
    """The videos of the train split behind the shipped statistics."""
    sample = Digits().sample(KeyedRNG(0, ("reference",), range(VIDEOS)), "train")
    assert sample.video is not None
    return sample.video, sample.prompts
