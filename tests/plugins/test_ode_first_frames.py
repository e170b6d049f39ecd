"""Trajectories of backbones that generate from a first frame: its condition travels with each."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from benchmarks.run import main as run_study
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.condition import encode, unconditional
from salt_zoo.plugin.manager import load_zoo
from salt_zoo_ode.dataset import Trajectories, TrajectoriesConfig
from salt_zoo_ode.store import read_folder
from salt_zoo_ode.trajectories import TrajectoryConfig, draw_trajectories
from tests.benchmarks.without_workers import run_here
from tests.plugins.tiny_i2v import SHAPE, SIZE, save_pipeline
from tests.preparation.lmdb_files import write_lmdb
from tests.sizes.plugin import FirstFrame, ImageToVideo

COUNT = 5
#: Told of it by channels and tokens, or by clean latents.
SIZES = {"test-small-i2v": ImageToVideo, "test-small-ti2v": FirstFrame}


@pytest.fixture(scope="module")
def sizes():
    return load_zoo(["tests.sizes.plugin"])


@pytest.fixture
def prepare(cli):
    def run(folder, size, *more, dataset="digits"):
        settings = {
            "backbone": f"{{name: wan, size: {size}}}",
            "dataset": dataset,
            "count": COUNT,
            "batch_size": 2,
            "teacher_steps": 4,
            "precision": "fp32",
        }
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        where = ("-p", "tests.sizes.plugin", "--out", folder, "--device", "cpu")
        return cli("prepare", "trajectories", *where, *sets, *more)

    return run


def make(sizes, size, name="wan"):
    configured = sizes.backbones.configure(name, {"size": size}, "test")
    return sizes.backbones.create(name, configured, sizes)


@pytest.mark.parametrize("size", SIZES)
def test_each_trajectory_has_its_own(size, prepare, sizes, tmp_path):
    ended = prepare(tmp_path / "ode", size)
    assert ended.code == 0, ended.err
    folder, backbone = read_folder(tmp_path / "ode"), make(sizes, size)
    folder.check()
    rng = KeyedRNG(0, ("trajectories",), range(COUNT))
    data = sizes.datasets.create("digits", None, sizes).sample(rng.at("data"), "train", True)
    assert folder.header["prompts"] == data.prompts
    wanted = backbone.encode_images(data.video[:, :, 0])
    found = folder.first_frames(range(COUNT))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
    if "first" in wanted:  # every trajectory ends in the given frame
        ends = folder.read(range(COUNT))[:, -1, :, :1]
        torch.testing.assert_close(ends, wanted["first"], rtol=0, atol=1e-5)
    rows = folder.shards[1]

    def solved(image):
        image = {name: value[rows.start : rows.stop] for name, value in image.items()}
        return draw_trajectories(
            TrajectoryConfig(teacher_steps=4),
            "teacher",
            backbone.network("teacher").eval(),
            rng.for_rows(rows),
            {**encode(backbone, data.prompts[rows.start : rows.stop]), **image},
            {**unconditional(backbone, 2), **image},
            backbone.guidance_scale,
            backbone.blocks(),
            backbone.latent_shape,
        )

    stored = folder.read(rows)
    assert torch.equal(solved(wanted), stored)
    others = {name: value.roll(1, dims=0) for name, value in wanted.items()}
    assert (solved(others) - stored).abs().max() > 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_a_student_is_trained_without_an_encoder(
    size, prepare, sizes, train, tmp_path, monkeypatch
):
    """Draws give a trajectory and its own frame; the validation's frames are its dataset's."""
    assert prepare(tmp_path / "ode", size).code == 0
    folder = read_folder(tmp_path / "ode")
    dataset = Trajectories(TrajectoriesConfig(folder=tmp_path / "ode"), sizes)
    sample = dataset.sample(KeyedRNG(0, rows=range(12)), "train", True)
    for place, trajectory in enumerate(sample.trajectory):
        (row,) = [row for row in range(COUNT) if torch.equal(folder.read([row])[0], trajectory)]
        for name, value in folder.first_frames([row]).items():
            assert torch.equal(sample.first_frame[name][place], value[0])
    run = {
        "method": {"name": "ode-regression", "of": "dataset", "learning_rate": 1e-3},
        "backbone": {"name": "self-forcing", "size": size, "options": {"weights": None}},
        "dataset": {"name": "trajectories", "folder": str(tmp_path / "ode")},
        "training": {"updates": 1, "checkpoint_every": 1},
    }
    encoded = []
    encode_images = SIZES[size].encode_images
    monkeypatch.setattr(
        SIZES[size],
        "encode_images",
        lambda self, images: encoded.append(len(images)) or encode_images(self, images),
    )
    trainer = train(tmp_path / "run", sizes, **run)
    assert trainer.history[0]["student/loss"] > 0 and not encoded
    run["quality"] = {"every": 1, "prompts": 2, "steps": [1], "metrics": ["motion-magnitude"]}
    trainer = train(tmp_path / "measured", sizes, **run)
    assert "quality/motion-magnitude@1" in trainer.history[0] and encoded == [2]


def test_kinds_that_do_not_fit_are_one_line(prepare, sizes, train, tmp_path):
    for size in ("test-small", "test-small-i2v"):
        assert prepare(tmp_path / size, size).code == 0

    def bound(folder, size):
        dataset = Trajectories(TrajectoriesConfig(folder=tmp_path / folder), sizes)
        dataset.bind(make(sizes, size))
        return dataset

    with pytest.raises(ZooError, match="begin from prompts alone, and this backbone generates fro"):
        bound("test-small", "test-small-i2v")
    with pytest.raises(ZooError, match="begin from a first frame, and this backbone generates fro"):
        bound("test-small-i2v", "test-small")
    dataset = bound("test-small-i2v", "test-small-i2v")
    dataset.folder.header["image encoder"]["vae"] = "another"
    with pytest.raises(ZooError, match="another image encoder than this backbone's made it"):
        dataset.bind(make(sizes, "test-small-i2v"))
    with pytest.raises(ZooError, match="has no videos, which the method needs"):
        train(
            tmp_path / "run",
            sizes,
            method={"name": "teacher-forcing"},
            backbone={"name": "wan", "size": "test-small-i2v", "options": {"weights": None}},
            dataset={"name": "trajectories", "folder": str(tmp_path / "test-small-i2v")},
        )


def test_a_dataset_without_first_frames_is_refused_at_once(prepare, tmp_path):
    ended = prepare(tmp_path / "ode", "test-small-i2v", dataset="prompts")
    assert ended.code == 2 and "these are prompts only" in ended.error
    assert not (tmp_path / "ode").exists()


def test_a_study_is_measured_on_first_frames_of_its_data(prepare, tmp_path, capsys, monkeypatch):
    """Where a network is measured, its data know the backbone, too."""
    monkeypatch.setattr("benchmarks.runner.workers.pool.run_tasks", run_here)
    assert prepare(tmp_path / "ode", "test-small-i2v").code == 0
    study = {
        "name": "mini",
        "title": "Mini",
        "seeds": [0],
        "base": {
            "backbone": {"name": "self-forcing", "size": "test-small-i2v"},
            "dataset": {"name": "trajectories", "folder": str(tmp_path / "ode")},
            "training": {"updates": 1, "batch_size": 2, "trackers": []},
        },
        "arms": {"ode": {"method": {"name": "ode-regression", "of": "dataset"}}},
        "evaluation": {
            "prompts": 2, "nfe": [1], "metrics": ["motion-magnitude"], "teacher": {"steps": 2},
        },
    }  # fmt: skip
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(study))
    words = [str(tmp_path / "mini.yaml"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert run_study([*words, "-p", "tests.sizes.plugin"]) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    measured = {row["arm"] for row in results["measurements"]}
    assert {"real", "ode"} < measured and len(measured) > 4  # and undistilled networks


@pytest.mark.parametrize("command", ["train", "study"])
def test_what_cannot_be_measured_is_refused_before_the_training(command, cli, tmp_path, capsys):
    """An LMDB's prompts come with first frames, and those on which quality is measured do not."""
    weights = save_pipeline(tmp_path / "pipeline")
    backbone = {"name": "wan", "size": SIZE, "options": {**SHAPE, "weights": str(weights)}}
    images = np.zeros((4, 32, 48, 3), np.uint8)
    latents = np.random.default_rng(0).standard_normal((4, 5, 3, 16, 4, 6))
    lmdb = write_lmdb(tmp_path / "lmdb", [f"a thing {n}" for n in range(4)], latents, images)
    sets = {
        "lmdb": lmdb, "timestep_shift": 8, "dataset": "prompts",
        "backbone": json.dumps(backbone),
    }  # fmt: skip
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    device = ("--device", "cpu")
    ended = cli("prepare", "trajectories", "--out", tmp_path / "ode", *words, *device)
    assert ended.code == 0, ended.err
    run = {
        "backbone": backbone,
        "dataset": {"name": "trajectories", "folder": str(tmp_path / "ode")},
        "training": {"updates": 3, "batch_size": 1, "trackers": []},
    }
    method = {"name": "ode-regression", "of": "dataset", "timestep_shift": 8}
    file, out = tmp_path / "file.yaml", tmp_path / "out"
    if command == "train":
        quality = {"every": 2, "prompts": 2, "steps": [1], "metrics": ["motion-magnitude"]}
        file.write_text(yaml.safe_dump({**run, "method": method, "quality": quality}))
        ended = cli("train", file, "--out", out, *device)
        code, error = ended.code, ended.err
    else:
        evaluation = {"prompts": 2, "nfe": [1], "metrics": ["motion-magnitude"]}
        study = {"name": "m", "title": "M", "seeds": [0], "base": run, "evaluation": evaluation}
        file.write_text(yaml.safe_dump({**study, "arms": {"ode": {"method": method}}}))
        code = run_study([str(file), "--out", str(out), *device])
        error = capsys.readouterr().err
    assert code == 2 and "the dataset has no real videos to begin from" in error, error
    assert not out.exists()


def test_trajectories_without_first_frames_are_named_for_what_they_are(
    prepare, write_run, cli, tmp_path
):
    assert prepare(tmp_path / "ode", "test-small").code == 0
    run = write_run(
        method={"name": "ode-regression", "of": "dataset"},
        backbone={"name": "self-forcing", "size": "test-small-i2v", "options": {"weights": None}},
        dataset={"name": "trajectories", "folder": str(tmp_path / "ode")},
    )
    ended = cli("train", run, "--out", tmp_path / "out", "-p", "tests.sizes.plugin")
    assert ended.code == 2 and "begin from prompts alone, and this backbone" in ended.error
    assert not (tmp_path / "out").exists()
