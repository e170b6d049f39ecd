"""`salt-zoo prepare latents` for a size that generates from a first frame, and training on it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from salt_zoo.cli import main
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.io.packed_reader import PackedReader
from salt_zoo_ode.store import read_folder
from tests.plugins.tiny_i2v import SHAPE, SIZE, save_pipeline
from tests.preparation.conftest import write_video
from tests.preparation.lmdb_files import write_lmdb
from tests.preparation.test_prepare_latents import read

CAPTIONS = ["a fox", "a crow", "waves", "a crow"]


@pytest.fixture(scope="module")
def tiny_wan(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "i2v")


def part(tiny_wan, name="wan", **beside):
    return {"name": name, "size": SIZE, "options": {**SHAPE, "weights": str(tiny_wan)}, **beside}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    videos = tmp_path_factory.mktemp("videos")
    for place, caption in enumerate(CAPTIONS):
        draws = np.random.default_rng(place).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
        write_video(videos / f"{place}.mkv", draws, 16)
        (videos / f"{place}.txt").write_text(caption)
    return videos


@pytest.fixture(scope="module")
def prepared(tiny_wan, videos, tmp_path_factory):
    """Their latents; not to be changed."""
    out = tmp_path_factory.mktemp("prepared") / "latents"
    options = ("--device", "cpu", "--set", f"videos={videos}")
    backbone = f"backbone={json.dumps(part(tiny_wan))}"
    assert main(["prepare", "latents", "--out", str(out), *options, "--set", backbone]) == 0
    return out


def make(zoo, kind, content):
    registry = {"backbone": zoo.backbones, "dataset": zoo.datasets}[kind]
    options = {key: value for key, value in content.items() if key != "name"}
    return registry.create(content["name"], registry.configure(content["name"], options, kind), zoo)


def test_first_frames_are_stored_beside_latents(zoo, tiny_wan, videos, prepared):
    backbone = make(zoo, "backbone", part(tiny_wan))
    reader = PackedReader(prepared)
    for item in (0, 3):
        pixels = read(videos / f"{item}.mkv")
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
    from salt_zoo_wan.encoders.image_encoder import ImageEncoder

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


@pytest.mark.parametrize("kind", ["latents", "trajectories"])
def test_first_frames_of_an_lmdb(kind, zoo, tiny_wan, cli, tmp_path):
    """Self-Forcing-Plus keeps them beside the latents, as bytes."""
    draws = np.random.default_rng(0)
    states = draws.standard_normal((4, 5, 3, 16, 4, 6)).astype(np.float16)
    images = draws.integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
    lmdb = write_lmdb(tmp_path / "lmdb", CAPTIONS, states, images)
    parts = ["--set", f"backbone={json.dumps(part(tiny_wan))}", "--set", f"lmdb={lmdb}"]
    if kind == "trajectories":
        parts += ["--set", "timestep_shift=8", "--set", "dataset=prompts"]
    ended = cli("prepare", kind, "--out", tmp_path / kind, "--device", "cpu", *parts)
    assert ended.code == 0, ended.err
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    wanted = make(zoo, "backbone", part(tiny_wan)).encode_images(pixels)
    if kind == "latents":
        found = [PackedReader(tmp_path / kind).read(row) for row in range(4)]
        images = {name: torch.stack([row[name][0] for row in found]) for name in wanted}
    else:
        images = read_folder(tmp_path / kind).first_frames(range(4))
    assert images.keys() == wanted.keys() == {"channels", "image"}
    for name, value in wanted.items():
        torch.testing.assert_close(images[name], value, rtol=1e-5, atol=1e-5)
    write_lmdb(lmdb, CAPTIONS, states, draws.integers(0, 9, (4, 8, 8, 3), np.uint8))
    ended = cli("prepare", kind, "--out", tmp_path / "other", "--device", "cpu", *parts)
    assert ended.code == 2 and "img_0_data has 192 bytes, and 48x32 pixels" in ended.error
    write_lmdb(tmp_path / "none", CAPTIONS, states)
    parts[3] = f"lmdb={tmp_path / 'none'}"
    ended = cli("prepare", kind, "--out", tmp_path / "none_of", "--device", "cpu", *parts)
    assert ended.code == 2 and "has no first frame img_0_data" in ended.error
