"""`salt-zoo sample`: a student or a teacher, every format, and the same video for a seed."""

from __future__ import annotations

import json
import os
import shutil

import av
import numpy as np
import pytest
import torch
from PIL import Image

from salt_zoo.video_files import GAP

SEVEN, THREE = "a 7 moving up-left slowly", "a 3 moving right quickly"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, teacher):
    """The folder of a run of two updates."""
    import yaml

    from salt_zoo.cli import main

    folder = tmp_path_factory.mktemp("trained")
    content = {
        "method": "teacher-forcing",
        "backbone": {"name": "wan", "size": "digits", "options": {"weights": str(teacher)}},
        "dataset": "digits",
        "training": {"updates": 2, "batch_size": 2, "trackers": []},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    assert main(["train", str(folder / "run.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def student(trained, tmp_path):
    """A copy of its student that a test may damage."""
    return shutil.copytree(trained / "student", tmp_path / "student")


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".png"])
def test_two_prompts_with_a_student(ending, trained, cli, tmp_path):
    out = tmp_path / "deep" / f"a{ending}"
    ended = cli("sample", SEVEN, THREE, "--checkpoint", trained, "--out", out)
    assert (ended.code, ended.out, ended.err) == (0, f"{out}\n", "")
    assert os.listdir(out.parent) == [out.name]
    if ending == ".mp4":
        with av.open(str(out)) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == 9 and frames[0].width == 2 * 128 + GAP
    else:
        with Image.open(out) as image:
            count = getattr(image, "n_frames", 1)
            strip = (9 * (128 + GAP) - GAP, 2 * 128 + GAP)
            expected = (strip, 1) if ending == ".png" else ((2 * 128 + GAP, 128), 9)
            assert (image.size, count) == expected


@pytest.fixture
def picture(cli, tmp_path):
    """Samples to a PNG strip and returns its pixels."""

    def make(*arguments):
        out = tmp_path / "picture.png"
        ended = cli("sample", *arguments, "--out", out)
        assert ended.code == 0, ended.err
        return np.asarray(Image.open(out))

    return make


def test_the_precision_is_the_one_asked_for(picture, trained, matrix_layers):
    student = (SEVEN, "--checkpoint", trained / "student")
    exact = picture(*student)
    assert matrix_layers == {(torch.float32, torch.float32)}  # auto on a CPU
    assert np.array_equal(exact, picture(*student, "--precision", "fp32"))
    matrix_layers.clear()
    rough = picture(*student, "--precision", "bf16").astype(float)
    # held in bf16, but for the time embedding, which is computed in it
    assert matrix_layers == {(d, torch.bfloat16) for d in (torch.float32, torch.bfloat16)}
    assert 0 < np.abs(rough - exact).mean() < 3


def test_the_seed_and_the_row_decide_the_video(picture, trained):
    student = ("--checkpoint", trained / "student")
    first = picture(SEVEN, *student)
    assert np.array_equal(first, picture(SEVEN, *student, "--seed", 0, "--nfe", 4))
    assert not np.array_equal(first, picture(SEVEN, *student, "--seed", 1))
    both = picture(SEVEN, THREE, *student)
    assert np.array_equal(both[:128], first)


def test_every_option_changes_the_video(picture, trained):
    student = ("--checkpoint", trained)
    usual = picture(SEVEN, *student)
    options = [("--nfe", 2), ("--sampler", "ode"), ("--shift", 3), ("--guidance", 2.5)]
    for option in options:
        assert not np.array_equal(usual, picture(SEVEN, *student, *option)), option


def test_a_teacher_runs_fifty_ode_steps_with_the_sizes_guidance(picture, zoo, teacher):
    weights = ("--set", f"backbone.options.weights={teacher}")
    source = ("--backbone", "wan", "--size", "digits", *weights)
    config = zoo.backbones.configure("wan", {"options": {"weights": str(teacher)}}, "test")
    backbone = zoo.backbones.create("wan", config, zoo)
    guidance = backbone.guidance_scale
    assert guidance == 2.0
    explicit = ("--nfe", 50, "--sampler", "ode", "--guidance", guidance)
    assert np.array_equal(picture(SEVEN, *source), picture(SEVEN, *source, *explicit))
    assert not np.array_equal(picture(SEVEN, *source), picture(SEVEN, *source, "--nfe", 4))


def test_what_is_to_be_sampled(cli, tmp_path, trained):
    out = ("--out", tmp_path / "a.gif")
    none = cli("sample", SEVEN, *out)
    assert none.code == 2 and "--checkpoint DIR" in none.error and "--backbone NAME" in none.error
    both = cli("sample", SEVEN, *out, "--checkpoint", trained, "--size", "digits")
    assert both.code == 2 and "leave them out" in both.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nfe", 0), "steps: should be greater than or equal to 1, not 0"),
        (("--shift", 0), "timestep_shift: should be greater than 0"),
        (("--guidance", "nan"), "guidance_scale: should be a finite number"),
        (("--device", "cuda:77"), "--device cuda:77"),
        (("--device", "tpu"), "--device tpu: unknown device"),
        (("--set", "backbone.sizes=x"), "sizes: unknown key; did you mean 'size'"),
        (("--set", "backbon.size=x"), "did you mean 'backbone'"),
        (("--set", "backbone.size=digit"), "unknown size 'digit'; did you mean 'digits'"),
    ],
)
def test_wrong_options(arguments, message, trained, cli, tmp_path):
    out = tmp_path / "out"
    ended = cli("sample", SEVEN, "--checkpoint", trained, *arguments, "--out", out / "a.gif")
    assert ended.code == 2 and message in ended.error
    assert not out.exists()


def test_a_prompt_that_is_not_understood(trained, cli, tmp_path):
    ended = cli("sample", "a dog", "--checkpoint", trained, "--out", tmp_path / "a.gif")
    assert ended.code == 2 and "'a dog'" in ended.error
    ended = cli(
        "sample", "a 7 moving upp slowly", "--checkpoint", trained, "--out", tmp_path / "a.gif"
    )
    assert ended.code == 2 and "did you mean 'up'" in ended.error


@pytest.mark.parametrize("name", ["a.avi", "a", "png"])
def test_a_wrong_ending_is_told_before_the_work(name, cli, tmp_path):
    ended = cli("sample", SEVEN, "--backbone", "wan", "--out", tmp_path / name)
    assert ended.code == 2 and ".mp4, .gif or .png" in ended.error


def test_an_unknown_backbone_or_size(cli, tmp_path):
    out = ("--out", tmp_path / "a.gif")
    assert "did you mean 'wan'" in cli("sample", SEVEN, "--backbone", "wann", *out).error
    ended = cli("sample", SEVEN, "--backbone", "wan", "--size", "digitz", *out)
    assert ended.code == 2 and "did you mean 'digits'" in ended.error


def test_a_place_that_cannot_be_written(trained, cli, tmp_path):
    (tmp_path / "file").write_text("kept")
    out = tmp_path / "file" / "a.gif"
    ended = cli("sample", SEVEN, "--checkpoint", trained, "--nfe", 1, "--out", out)
    assert ended.code == 2 and str(out) in ended.error and "is a file" in ended.error
    assert (tmp_path / "file").read_text() == "kept"


# --- damaged students: every one is one line that names the file ---


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def without_name(path):
    content = json.loads(path.read_text())
    content["run"]["backbone"] = {}
    del content["digest"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "damage", "named"),
    [
        ("salt_zoo.json", lambda path: path.unlink(), "student"),
        ("salt_zoo.json", truncate, "salt_zoo.json"),
        ("salt_zoo.json", lambda path: path.write_text("[]"), "salt_zoo.json"),
        ("salt_zoo.json", lambda path: path.write_bytes(b"\xff"), "salt_zoo.json"),
        ("salt_zoo.json", without_name, "salt_zoo.json"),
        ("transformer/config.json", lambda path: path.unlink(), "student"),
        ("transformer/config.json", truncate, "transformer"),
        ("transformer/config.json", lambda path: path.write_text("{}"), "transformer"),
        (WEIGHTS, lambda path: path.unlink(), "transformer"),
        (WEIGHTS, truncate, "transformer"),
        (WEIGHTS, lambda path: path.write_bytes(b""), "transformer"),
        (WEIGHTS, lambda path: path.write_bytes(b"\xff" * 1000), "transformer"),
    ],
)
def test_a_damaged_student(name, damage, named, student, cli, tmp_path):
    damage(student / name)
    out = tmp_path / "out" / "a.gif"
    ended = cli("sample", SEVEN, "--checkpoint", student, "--nfe", 1, "--out", out)
    assert ended.code == 2, ended.err
    assert str(student) in ended.error and named in ended.error
    assert not out.parent.exists()


def test_a_missing_student(cli, tmp_path):
    missing = tmp_path / "missing"
    ended = cli("sample", SEVEN, "--checkpoint", missing, "--out", tmp_path / "a.gif")
    assert ended.code == 2 and f"{missing}: there is no such folder" in ended.error
