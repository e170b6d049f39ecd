"""A tiny Wan pipeline with random UMT5 and VAE, and videos in the forms that people have."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.training.launch import train
from tests.plugins.test_wan_published_sizes import make_backbone, tiny_wan  # noqa: F401

CAPTIONS = ["a red fox", "waves, at night", "a red fox"]


@pytest.fixture
def wan(zoo, tiny_wan):  # noqa: F811
    return make_backbone(zoo, weights=str(tiny_wan))


def write_video(path: Path, frames: np.ndarray, rate: int) -> None:
    """`frames` `[F, height, width, 3]` of bytes, without loss."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def videos(tmp_path) -> Path:
    """A folder with three videos of 9 frames of 32x48 at 16 frames a second, and captions."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for place, caption in enumerate(CAPTIONS):
        draws = np.random.default_rng(place).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
        write_video(folder / f"{place}.mkv", draws, 16)
        (folder / f"{place}.txt").write_text(f"{caption}\n")
    return folder


@pytest.fixture
def in_form(videos, tmp_path) -> Callable[[str], Path]:
    """The same videos as a folder, a table or a webdataset tar."""

    def form(name: str) -> Path:
        if name == "folder":
            return videos
        if name == "csv":
            lines = [f'{n}.mkv,"{caption}"' for n, caption in enumerate(CAPTIONS)]
            (videos / "all.csv").write_text("\n".join(["path,caption", *lines]))
            return videos / "all.csv"
        with tarfile.open(tmp_path / "all.tar", "w") as tar:
            for path in sorted(videos.iterdir()):
                tar.add(path, path.name)
        return tmp_path / "all.tar"

    return form


def same_weights(one: Any, other: Any) -> bool:
    """Whether two trainers' students are bitwise the same."""
    weights = [trainer.networks["student"].state_dict() for trainer in (one, other)]
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.fixture
def resumed_bitwise(zoo, tmp_path) -> Callable[[dict[str, Any]], Any]:
    """Trains 2 updates at once and in two halves, which must agree; returns the trainer."""

    def go(run: dict[str, Any]) -> Any:
        def until(updates: int, name: str) -> Any:
            run["training"]["updates"] = updates
            return train(resolve(run, zoo, "test"), tmp_path / name, zoo, "cpu")

        whole = until(2, "whole")
        until(1, "parts")
        assert same_weights(whole, until(2, "parts"))
        return whole

    return go


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
