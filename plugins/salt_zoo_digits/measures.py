"""Exact measures of digit videos against what their prompts command. Pure functions.

Videos are grey values `[N, 1, F, 16, 16]`, nominally in [0, 1] with a background of 0. They may be
clips of longer videos: `first` is the frame of the whole video with which they begin. The truth
of a clip is the commanded path from the video's first frame on, so that a digit which once missed
a move is wrong from there on, however well it goes on moving.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from salt_zoo_digits.data import (
    DIGIT,
    DIRECTIONS,
    FRAMES,
    SPEEDS,
    parse,
    path,
    starts,
)

MOTIONS = tuple((direction, speed) for direction in DIRECTIONS for speed in SPEEDS)


@functools.cache
def all_paths(frames: int = FRAMES, first: int = 0) -> tuple[Tensor, Tensor]:
    """Every path that a command can take: corners `[P, F, 2]` and the motion's index `[P]`."""
    paths, motions = [], []
    for index, (direction, speed) in enumerate(MOTIONS):
        for start in starts(direction):
            paths.append(path(direction, speed, start, frames, first))
            motions.append(index)
    return torch.tensor(np.stack(paths), dtype=torch.float32), torch.tensor(motions)


def commanded(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The digit `[N]` and the motion `[N]` (an index into MOTIONS) that each prompt asks for."""
    commands = [parse(prompt) for prompt in prompts]
    motions = [MOTIONS.index((c.direction, c.speed)) for c in commands]
    return torch.tensor([c.digit for c in commands]), torch.tensor(motions)


def centroids(videos: Tensor) -> Tensor:
    """Centre of mass (row, column) in pixels of every frame: `[N, F, 2]`; the middle if empty."""
    weight = videos[:, 0].clamp(0, 1)
    mass = weight.sum(dim=(-1, -2))
    place = torch.arange(weight.shape[-1], dtype=weight.dtype, device=weight.device)
    row = (weight.sum(-1) * place).sum(-1)
    column = (weight.sum(-2) * place).sum(-1)
    middle = torch.full_like(mass, (weight.shape[-1] - 1) / 2)
    centre = [
        torch.where(mass > 1e-6, part / mass.clamp(min=1e-6), middle) for part in (row, column)
    ]
    return torch.stack(centre, dim=-1)


def path_errors(videos: Tensor, first: int = 0) -> Tensor:
    """Root mean square distance in pixels of the centroids to each path, `[N, P]`.

    A digit's centre of mass lies at its own place in its 8x8 box, so a constant offset is free.
    """
    paths = all_paths(videos.shape[2], first)[0].to(videos)
    track = centroids(videos)
    track = track - track.mean(dim=1, keepdim=True)
    paths = paths - paths.mean(dim=1, keepdim=True)
    return (track[:, None] - paths[None]).square().sum(-1).mean(-1).sqrt()


def motion_correct(videos: Tensor, prompts: Sequence[str], first: int = 0) -> Tensor:
    """1 where the path that fits the centroids best belongs to the commanded motion, else 0."""
    motions = all_paths()[1].to(videos.device)
    _, wanted = commanded(prompts)
    found = motions[path_errors(videos, first).argmin(dim=1)]
    return (found == wanted.to(videos.device)).to(videos.dtype)


def _best_of_command(scores: Tensor, prompts: Sequence[str]) -> Tensor:
    """The smallest of `scores` `[N, P]` over the paths of each row's own command."""
    motions = all_paths()[1].to(scores.device)
    wanted = commanded(prompts)[1].to(scores.device)
    return scores.masked_fill(motions[None] != wanted[:, None], float("inf")).amin(dim=1)


def centroid_error(videos: Tensor, prompts: Sequence[str], first: int = 0) -> Tensor:
    """Distance in pixels of the centroids to the commanded path that fits best."""
    return _best_of_command(path_errors(videos, first), prompts)


def displacement_ratio(videos: Tensor, prompts: Sequence[str], first: int = 0) -> Tensor:
    """Length of the centroids' track over the commanded one (dynamic degree): 1 is right."""
    track = centroids(videos)
    paths, motions = all_paths(videos.shape[2], first)
    paths, motions = paths.to(videos), motions.to(videos.device)
    length = track.diff(dim=1).norm(dim=-1).sum(dim=1)
    # all starts of one command travel equally far
    lengths = torch.stack([paths[motions == m][0] for m in range(len(MOTIONS))])
    lengths = lengths.diff(dim=1).norm(dim=-1).sum(dim=1)
    return length / lengths[commanded(prompts)[1].to(videos.device)]


def rigidity_error(videos: Tensor, prompts: Sequence[str], first: int = 0) -> Tensor:
    """Share of energy that no rigid digit on the commanded path explains: real data exactly 0.

    The best rigid digit on a path is the mean of the 8x8 boxes along it; what it leaves over is
    the energy outside the boxes and the boxes' variance. The best start of the command counts.
    """
    n, frames = videos.shape[0], videos.shape[2]
    pixels = videos[:, 0]
    energy = pixels.square().sum(dim=(1, 2, 3))
    unexplained = []
    for corners in all_paths(frames, first)[0].long():
        boxes = torch.stack(
            [
                pixels[:, f, r : r + DIGIT, c : c + DIGIT]
                for f, (r, c) in enumerate(corners.tolist())
            ],
            dim=1,
        )
        unexplained.append(energy - frames * boxes.mean(dim=1).square().sum(dim=(1, 2)))
    best = _best_of_command(torch.stack(unexplained, dim=1), prompts)
    return (best / energy.clamp(min=1e-6)).clamp(0, 1).view(n)


def laplacian_energy(videos: Tensor) -> Tensor:
    """Mean squared discrete Laplacian of the frames, `[N]`."""
    pixels = videos[:, 0]
    inner = pixels[:, :, 1:-1, 1:-1]
    around = (
        pixels[:, :, :-2, 1:-1]
        + pixels[:, :, 2:, 1:-1]
        + pixels[:, :, 1:-1, :-2]
        + pixels[:, :, 1:-1, 2:]
    )
    return (around - 4 * inner).square().mean(dim=(1, 2, 3))


def flicker(videos: Tensor) -> Tensor:
    """Mean change of total mass between frames over the mean mass: real data 0."""
    mass = videos[:, 0].clamp(0, 1).sum(dim=(-1, -2))
    return mass.diff(dim=1).abs().mean(dim=1) / mass.mean(dim=1).clamp(min=1e-6)


def centroid_velocities(videos: Tensor) -> Tensor:
    """Features of motion: the centroids' steps between frames, `[N, 2 * (F - 1)]`."""
    return centroids(videos).diff(dim=1).flatten(1)


def distance_within_prompt(videos: Tensor, prompts: Sequence[str]) -> Tensor:
    """Root mean square pixel distance of each video to the others of its prompt, averaged: `[N]`.

    NaN for a video that is the only one of its prompt.
    """
    flat = videos.clamp(0, 1).flatten(1)
    distance = torch.cdist(flat, flat) / flat.shape[1] ** 0.5
    names = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    of = torch.tensor([names[prompt] for prompt in prompts], device=videos.device)
    same = (of[:, None] == of[None]) & ~torch.eye(len(of), dtype=torch.bool, device=of.device)
    # chosen, not weighed: a video that is not finite is a row of NaN, and not all rows
    return torch.where(same, distance, 0).sum(dim=1) / same.sum(dim=1)
