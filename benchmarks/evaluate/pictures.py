"""The videos that a report shows, as small as it shows them: kept beside it, so that it can be
rendered again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.evaluate.records import EvalResult
from benchmarks.study.text import shown_text
from salt_zoo.io.files import storage
from salt_zoo.io.files.regular import check_regular

FILE = "videos.npz"
#: The largest frames, and the most of them, that a page shows of a video, and of a long one.
HEIGHT, FRAMES, LONG_FRAMES = 96, 16, 120

#: Arm, backbone, NFE and sampler as text, and "short" or "long".
Key = tuple[str, ...]
Pictures = Mapping[Key, np.ndarray]


def shown_videos(measured: Sequence[EvalResult]) -> dict[Key, np.ndarray]:
    """The videos of the first training seed of every setting, reduced to what a page shows."""
    found: dict[Key, np.ndarray] = {}
    for one in measured:
        if len(one.pixels):
            found.setdefault(_key(one, "short"), one.pixels)
        if one.long and len(one.long.pixels):
            found.setdefault(_key(one, "long"), one.long.pixels)
    return {
        key: np.stack([_reduced(video, key[-1]) for video in videos])
        for key, videos in found.items()
    }


def write_videos(measured: Sequence[EvalResult], folder: Path) -> None:
    """Write `videos.npz`."""
    # an archive has no room for names without an end
    videos = {
        json.dumps(list(map(shown_text, key))): pixels
        for key, pixels in shown_videos(measured).items()
    }
    with storage.atomic_file(folder / FILE) as draft, draft.open("wb") as file:
        np.savez_compressed(file, **videos)  # type: ignore[arg-type]


def read_videos(folder: Path) -> Pictures:
    """What `write_videos` wrote; nothing where there is no such file."""
    path = folder / FILE
    if not os.path.lexists(path):
        return {}
    check_regular(path, "delete it and run the study again")
    with np.load(path) as arrays:
        return {tuple(json.loads(name)): arrays[name] for name in arrays.files}


def _key(one: EvalResult, length: str) -> Key:
    return one.arm, one.backbone, str(one.nfe), str(one.sampler), length


def _reduced(video: np.ndarray, length: str) -> np.ndarray:
    """uint8 `[channels, frames, height, width]` with no more frames and rows than are shown."""
    most = LONG_FRAMES if length == "long" else FRAMES
    frames = video.shape[1]
    chosen = np.linspace(0, frames - 1, min(frames, most)).round().astype(int)
    video = video[:, chosen]
    height, width = video.shape[2:]
    if height <= HEIGHT:
        return video
    size = (max(1, round(width * HEIGHT / height)), HEIGHT)
    return np.stack(
        [
            [
                np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
                for frame in channel
            ]
            for channel in video
        ]
    )
