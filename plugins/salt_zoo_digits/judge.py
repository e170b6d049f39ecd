"""The judge: a small classifier of single frames, trained on the train split, then frozen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from einops import rearrange
from torch import Tensor, nn

from salt_zoo.core.base.rng import KeyedRNG, seed_torch
from salt_zoo_digits.data import DIGIT, SIZE, images

#: The shipped judge, made by `salt-zoo pretrain digits-judge`.
JUDGE = Path(__file__).parent / "weights" / "judge"

FEATURES = 32


class Judge(nn.Module):
    """Frames `[N, 1, 16, 16]` in [0, 1] to features `[N, 32]` and class logits `[N, 10]`.

    Convolutions and a global maximum, so that the place of the digit hardly matters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(64, FEATURES),
        )
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(frames)
        return features, self.head(torch.relu(features))


@functools.cache
def shipped_judge() -> Judge:
    judge = Judge()
    judge.load_state_dict(safetensors.torch.load_file(JUDGE / "judge.safetensors"))
    return judge.eval().requires_grad_(False)


def judge_video(judge: Judge, videos: Tensor) -> tuple[Tensor, Tensor]:
    """Features `[N, F, 32]` and class probabilities `[N, F, 10]` of every frame of
    `[N, 1, F, 16, 16]`, clamped to [0, 1]."""
    frames = rearrange(videos.clamp(0, 1), "n c f h w -> (n f) c h w")
    # what the convolutions make of so many frames fits in a CPU's cache: twice as fast
    judged = [judge(part) for part in frames.split(144)]
    features, logits = (torch.cat(parts) for parts in zip(*judged, strict=True))
    by_video = "(n f) d -> n f d"
    n = len(videos)
    return rearrange(features, by_video, n=n), rearrange(logits.softmax(-1), by_video, n=n)


def train_judge(
    steps: int,
    batch_size: int,
    progress: Callable[[int, int, Mapping[str, float]], None] = lambda step, steps, logs: None,
) -> Judge:
    """Train a judge on digits at random places with varied contrast and noise.

    `progress` is told of every step.
    """
    with torch.random.fork_rng(devices=[]):
        seed_torch(KeyedRNG(0).generator("judge").initial_seed())
        judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    pictures, classes = images("train")
    labels = _labels(classes)
    for step in range(steps):
        generator = KeyedRNG(0).generator("judge", step)
        chosen = torch.randint(len(pictures), (batch_size,), generator=generator)
        frames = _placed(pictures[chosen], generator)
        gain = 0.7 + 0.6 * torch.rand(batch_size, 1, 1, 1, generator=generator)
        noise = 0.1 * torch.rand(batch_size, 1, 1, 1, generator=generator)
        frames = frames * gain + noise * torch.randn(frames.shape, generator=generator)
        loss = nn.functional.cross_entropy(judge(frames.clamp(0, 1))[1], labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, steps, {})
    return judge.eval().requires_grad_(False)


def _labels(classes: tuple[tuple[int, ...], ...]) -> Tensor:
    labels = torch.empty(sum(map(len, classes)), dtype=torch.long)
    for digit, members in enumerate(classes):
        labels[list(members)] = digit
    return labels


def _placed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each 8x8 picture at a random place of a 16x16 canvas."""
    corners = torch.randint(SIZE - DIGIT + 1, (len(pictures), 2), generator=generator)
    frames = torch.zeros(len(pictures), 1, SIZE, SIZE)
    for frame, picture, (row, column) in zip(frames, pictures, corners.tolist(), strict=True):
        frame[0, row : row + DIGIT, column : column + DIGIT] = picture
    return frames


@torch.inference_mode()
def frame_accuracy(judge: Judge, split: str) -> float:
    """The share of a split's digits, each in a frame of its own, that it sees right."""
    pictures, classes = images(split)
    frames = _placed(pictures, KeyedRNG(0).generator("judge", split))
    return float((judge(frames)[1].argmax(-1) == _labels(classes)).float().mean())
