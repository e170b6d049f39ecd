"""`salt-zoo prepare latents` for a size that generates from a first frame, and training on it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from salt_zoo.core.errors import ZooError
from salt_zoo.core.rng import KeyedRNG
from salt_zoo.io.packed_reader import PackedReader
from tests.plugins.tiny_i2v import SHAPE, SIZE, save_pipeline
from tests.preparation.conftest import write_video
from tests.preparation.test_prepare_latents import read

CAPTIONS = ["a fox", "a crow", "waves", "a crow"]


@pytest.fixture(scope="module")
def tiny_wan(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "i2v")


def part(tiny_wan, name="wan", **beside):
    return {"name": name, "size": SIZE, "options": {**SHAPE, "weights": str(tiny_wan)}, **beside}


@pytest.fixture
def prepared(tiny_wan, cli, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for place, caption in enumerate(CAPTIONS):
        draws = np.random.default_rng(place).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
        write_video(videos / f"{place}.mkv", draws, 16)
        (videos / f"{place}.txt").write_text(caption)
    out, options = tmp_path / "latents", ("--device", "cpu", "--set", f"videos={videos}")
    backbone = f"backbone={json.dumps(part(tiny_wan))}"
    ended = cli("prepare", "latents", "--out", out, *options, "--set", backbone)
    assert ended.code == 0, ended.err
    return out


def make(zoo, kind, content):
    registry = {"backbone": zoo.backbones, "dataset": zoo.datasets}[kind]
    options = {key: value for key, value in content.items() if key != "name"}
    return registry.create(content["name"], registry.configure(content["name"], options, kind), zoo)


def test_first_frames_are_stored_beside_latents(zoo, tiny_wan, prepared, tmp_path):
    backbone = make(zoo, "backbone", part(tiny_wan))
    reader = PackedReader(prepared)
    for item in (0, 3):
        pixels = read(tmp_path / "videos" / f"{item}.mkv")
        found = reader.read(item)
        assert torch.equal(found.pop("latents"), backbone.encode_video(pixels[None]))
        wanted = backbone.encode_images(pixels[None, :, 0])
        assert found.keys() == wanted.keys() == {"channels", "image"}
        for name, value in wanted.items():
            assert torch.equal(found[name], value), name
    dataset = make(zoo, "dataset", {"name": "prepared", "folder": str(prepared), "held_out": 1})
    dataset.bind(backbone)
    sample = dataset.sample(KeyedRNG(0, rows=range(3)), "train")
    assert sample.latents.shape == (3, 16, 3, 4, 6)
    assert sample.first_frame["channels"].shape == (3, 20, 3, 4, 6)
    for split in ("validation", "test"):  # of a video of that prompt
        (prompt,) = dataset.prompts(split)
        rows = [row for row, caption in enumerate(CAPTIONS) if caption == prompt]
        found = dataset.first_frames([prompt], KeyedRNG(0, rows=range(1)), split)["image"]
        assert any(torch.equal(found, reader.read(row)["image"]) for row in rows)


def test_a_training_needs_no_image_encoder(tiny_wan, prepared, train, tmp_path, monkeypatch):
    """A data-free method takes the frames alone; quality is measured with those of its split."""
    from salt_zoo_wan.image_encoder import ImageEncoder

    def refuse(self):
        raise AssertionError("the image encoder was loaded")

    monkeypatch.setattr(ImageEncoder, "_load", refuse)
    trainer = train(
        tmp_path / "run",
        method={"name": "dmd", "steps": 2, "fake_score": {"updates": 1}, "learning_rate": 1e-4},
        backbone=part(tiny_wan, "self-forcing", block_frames=1),
        dataset={"name": "prepared", "folder": str(prepared), "held_out": 1},
        training={"updates": 1, "checkpoint_every": 1},
        quality={"every": 1, "prompts": 2, "steps": [1], "metrics": ["motion-magnitude"]},
    )
    assert trainer.history[0]["student/loss"] > 0


def test_latents_of_a_size_from_text_have_no_first_frames(zoo, prepared):
    dataset = make(zoo, "dataset", {"name": "prepared", "folder": str(prepared), "held_out": 1})
    del dataset.reader.header["image encoder"]
    with pytest.raises(ZooError, match="holds no first frames, which this backbone generates from"):
        dataset.first_frames(["a fox"], KeyedRNG(0, rows=range(1)), "train")
