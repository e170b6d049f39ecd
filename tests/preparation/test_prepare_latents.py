"""`salt-zoo prepare latents`: videos of any form, and those of a dataset, through the encoder."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.io.packed_reader import PackedReader
from salt_zoo.io.videos.captioned_videos import find_videos
from salt_zoo.io.videos.video_reading import cover, read_video
from salt_zoo_wan.encoders.prepared import Prepared, PreparedConfig
from tests.plugins.test_wan_published_sizes import make_backbone
from tests.preparation.conftest import CAPTIONS, write_video
from tests.preparation.test_prepare_text import of_wan

pytestmark = pytest.mark.usefixtures("one_zoo")

DIGITS = ("--set", "backbone=wan", "--set", "dataset=digits", "--set", "count=50")


def read(path, frames=9, rate=16.0, size=(32, 48), channels=3):
    with open(path, "rb") as file:
        return read_video(file, str(path), frames, rate, size, channels)


@pytest.mark.parametrize("form", ["folder", "csv", "tar"])
def test_videos_with_captions(form, in_form, wan, tiny_wan, cli, videos, tmp_path):
    ended = cli(
        *("prepare", "latents", "--out", tmp_path / "latents", "--device", "cpu"),
        *("--set", f"videos={in_form(form)}", *of_wan(tiny_wan)),
    )
    assert ended.code == 0, ended.err
    reader = PackedReader(tmp_path / "latents")
    assert reader.prompts == CAPTIONS
    for item in range(3):
        pixels = read(videos / f"{item}.mkv")
        draws = np.random.default_rng(item).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
        levels = torch.from_numpy(draws).permute(3, 0, 1, 2)
        assert torch.equal((pixels * 255).round(), levels.float())
        found = reader.read(item)["latents"]
        assert torch.equal(found, wan.encode_video(pixels[None]))


def test_frames_are_those_of_their_times(tmp_path):
    """8 frames a second of a video of 24: every third; and slower ones stand twice."""
    levels = np.arange(24, dtype=np.uint8).reshape(-1, 1, 1, 1) * 10
    write_video(tmp_path / "a.mkv", np.broadcast_to(levels, (24, 16, 16, 3)).copy(), 24)
    found = read(tmp_path / "a.mkv", 8, 8.0, (16, 16))
    assert (found[0, :, 0, 0] * 255).round().tolist() == [30 * place for place in range(8)]
    found = read(tmp_path / "a.mkv", 48, 48.0, (16, 16), channels=1)
    assert found.shape == (1, 48, 16, 16)
    assert (found[0, :, 0, 0] * 255).round().tolist() == [10 * (n // 2) for n in range(48)]
    with pytest.raises(ZooError, match="has 24 frames at 24 a second and 25 are needed"):
        read(tmp_path / "a.mkv", 25, 24.0, (16, 16))


def test_frames_cover_the_size():
    """A horizontal ramp is scaled to its height and keeps its centre."""
    ramp = torch.linspace(0, 1, 64).expand(1, 2, 16, 64)
    found = cover(ramp, (8, 8))
    assert found.shape == (1, 2, 8, 8)
    wanted = ramp.reshape(1, 2, 8, 2, 32, 2).mean(dim=(3, 5))[..., 12:20]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.01)
    assert torch.equal(cover(ramp, (16, 64)), ramp)


def test_a_dataset_is_drawn_by_row_and_trained_with(
    cli, zoo, run_content, resumed_bitwise, tmp_path
):
    where = ("--out", tmp_path / "latents", "--device", "cpu", "--set", "batch_size=8")
    assert cli("prepare", "latents", *where, *DIGITS, "--set", "shard_size=20").code == 0
    data = Prepared(PreparedConfig(folder=tmp_path / "latents", held_out=2), zoo)
    digits = zoo.datasets.create("digits", None, zoo)
    drawn = digits.sample(KeyedRNG(0, ("latents",), range(50)).at("data"), "train", True)
    backbone = zoo.backbones.create("wan", zoo.backbones.configure("wan", {}, "test"), zoo)
    assert data.reader.prompts == drawn.prompts
    together = torch.stack([data.reader.read(item)["latents"][0] for item in range(50)])
    assert torch.equal(together, backbone.encode_video(drawn.video))
    rng = KeyedRNG(1, ("data",), range(6))
    sample = data.sample(rng, "train")
    assert sample.video is None and sample.latents.shape == (6, *backbone.latent_shape)
    for prompt, latents in zip(sample.prompts, sample.latents, strict=True):
        items = [item for item, one in enumerate(drawn.prompts) if one == prompt]
        assert any(torch.equal(latents, together[item]) for item in items)
    splits = [set(data.prompts(split)) for split in ("train", "validation", "test")]
    assert not splits[0] & splits[1] and not splits[1] & splits[2]
    assert set(sample.prompts) <= splits[0]
    run = run_content()
    run["dataset"] = {"name": "prepared", "folder": str(tmp_path / "latents"), "held_out": 2}
    resumed_bitwise(run)


def test_bfloat16_takes_half_the_space(cli, tmp_path):
    for dtype in ("float32", "bfloat16"):
        chosen = (*DIGITS, "--set", f"dtype={dtype}", "--set", "batch_size=50")
        where = ("--out", tmp_path / dtype, "--device", "cpu")
        assert cli("prepare", "latents", *where, *chosen).code == 0
    exact, rough = (PackedReader(tmp_path / dtype) for dtype in ("float32", "bfloat16"))
    for item in (0, 49):
        one, other = exact.read(item)["latents"], rough.read(item)["latents"]
        assert not torch.equal(one, other) and torch.equal(one.bfloat16().float(), other)
    file = "latents-00000.safetensors"
    assert (rough.path / file).stat().st_size < 0.6 * (exact.path / file).stat().st_size


def test_latents_of_another_encoder_or_size(in_form, cli, tiny_wan, zoo, wan, tmp_path):
    where = ("--out", tmp_path / "latents", "--device", "cpu")
    chosen = ("--set", f"videos={in_form('folder')}", *of_wan(tiny_wan))
    assert cli("prepare", "latents", *where, *chosen).code == 0
    config = PreparedConfig(folder=tmp_path / "latents", held_out=1)
    with pytest.raises(ZooError, match="2 different prompts are too few to hold out 2 x 1"):
        Prepared(config, zoo)
    (in_form("folder") / "2.txt").write_text("a third")
    assert cli("prepare", "latents", *where, *chosen).code == 2
    where = ("--out", tmp_path / "three", "--device", "cpu")
    assert cli("prepare", "latents", *where, *chosen).code == 0
    data = Prepared(PreparedConfig(folder=tmp_path / "three", held_out=1), zoo)
    data.bind(wan)
    larger = make_backbone(zoo, weights=str(tiny_wan), height=48)
    with pytest.raises(ZooError, match=r"its latents are \[16, 3, 4, 6\] and this backbone's"):
        data.bind(larger)
    other = tmp_path / "other"
    shutil.copytree(tiny_wan, other)
    weights = other / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors[next(iter(tensors))] += 1
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ZooError, match=r"another video encoder .*vae/diffusion_pytorch_model"):
        data.bind(make_backbone(zoo, weights=str(other)))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda v: (v / "1.txt").unlink(), "1.mkv: has no caption; write it to 1.txt beside it"),
        (lambda v: (v / "1.txt").write_text(" "), "1.txt: the caption is empty"),
        (lambda v: [p.unlink() for p in v.iterdir()], "holds no video"),
        (lambda v: (v / "1.mkv").write_bytes(b"no"), "1.mkv: cannot be decoded as a video"),
    ],
)
def test_videos_that_are_wrong(harm, message, videos, tiny_wan, cli, tmp_path):
    harm(videos)
    ended = cli(
        *("prepare", "latents", "--out", tmp_path / "latents", "--device", "cpu"),
        *("--set", f"videos={videos}", *of_wan(tiny_wan)),
    )
    assert ended.code == 2 and message in ended.error


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,words\n0.mkv,a\n", "needs the columns 'path' and 'caption'; it has path, words"),
        ("path,caption\nnone.mkv,a\n", "row 1: there is no file"),
        ("path,caption\n0.mkv,\n", "row 1: the caption is empty"),
    ],
)
def test_tables_that_are_wrong(table, message, videos):
    (videos / "all.csv").write_text(table)
    with pytest.raises(ZooError, match=message):
        find_videos(videos / "all.csv")


def test_a_folder_or_a_pipe_in_a_files_place_is_one_line(videos):
    (videos / "0.txt").unlink()
    (videos / "0.txt").mkdir()
    with pytest.raises(ZooError, match=r"0\.txt: cannot be read \(it is a folder\)"):
        find_videos(videos)
    for name in ("all.csv", "all.tar"):
        os.mkfifo(videos.parent / name)
        with pytest.raises(ZooError, match="no regular file"):
            find_videos(videos.parent / name)


def test_a_tar_that_is_cut(in_form):
    tar = in_form("tar")
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(ZooError, match=r"all.tar: an incomplete or corrupt tar|has no caption"):
        find_videos(tar)
