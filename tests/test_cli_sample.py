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
from safetensors.torch import load_file

from salt_zoo.io.videos.video import GAP
from salt_zoo_digits.size import CAUSAL as CAUSAL_WEIGHTS
from salt_zoo_wan.checkpoint.export import to_original

pytestmark = pytest.mark.usefixtures("one_zoo")

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
    usual = picture(SEVEN, *source)
    assert np.array_equal(usual, picture(SEVEN, *source, *explicit))
    assert not np.array_equal(usual, picture(SEVEN, *source, "--nfe", 4))


def test_what_is_to_be_sampled(cli, tmp_path, trained):
    out = ("--out", tmp_path / "a.gif")
    none = cli("sample", SEVEN, *out)
    assert none.code == 2 and "--checkpoint DIR" in none.error and "--backbone NAME" in none.error
    both = cli("sample", SEVEN, *out, "--checkpoint", trained, "--size", "digits")
    assert both.code == 2 and "omit them" in both.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nfe", 0), "--nfe 0: steps: should be greater than or equal to 1, not 0"),
        (("--shift", 0), "--shift 0.0: timestep_shift: should be greater than 0"),
        (("--guidance", "nan"), "--guidance nan: guidance_scale: should be a finite number"),
        (("--device", "cuda:77"), "--device cuda:77"),
        (("--device", "tpu"), "--device tpu: unknown device"),
        (("--set", "backbone.sizes=x"), "sizes: unknown key; did you mean 'size'"),
        (("--set", "backbon.size=x"), "did you mean 'backbone'"),
        (
            ("--set", "backbone.size=digit"),
            "backbone.size: unknown size 'digit'; did you mean 'digits'",
        ),
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


# --- weights of other codes ---

CAUSAL = ("--checkpoint", CAUSAL_WEIGHTS)


def test_a_foreign_student_needs_its_kind_alone(picture, cli, tmp_path):
    ended = cli("sample", SEVEN, *CAUSAL, "--out", tmp_path / "a.png")
    assert ended.code == 2 and "of the size 'digits'" in ended.error
    assert "--backbone self-forcing or --backbone wan" in ended.error
    weights = to_original(load_file(CAUSAL_WEIGHTS / "diffusion_pytorch_model.safetensors"))
    torch.save({"student": weights, "critic": weights}, tmp_path / "w.pt")
    folder = picture(SEVEN, *CAUSAL, "--backbone", "self-forcing")
    file = ("--checkpoint", tmp_path / "w.pt", "--backbone", "self-forcing", "--size", "digits")
    assert np.array_equal(folder, picture(SEVEN, *file))
    assert not np.array_equal(folder, picture(SEVEN, *CAUSAL, "--backbone", "wan"))


@pytest.mark.parametrize("key", ["initial=/no/such.pt", "memory=window", "block_frames=3"])
def test_options_that_a_teacher_does_not_use(key, cli, tmp_path):
    teacher = ("--backbone", "self-forcing", "--size", "digits", "--set", f"backbone.{key}")
    ended = cli("sample", SEVEN, *teacher, "--nfe", 1, "--out", tmp_path / "a.png")
    assert ended.code == 2 and "sample --checkpoint DIR_OR_FILE" in ended.error
    assert os.listdir(tmp_path) == []


def test_a_start_that_a_checkpoint_does_not_use(cli, tmp_path):
    student = (*CAUSAL, "--backbone", "self-forcing", "--set", "backbone.initial=x.pt")
    ended = cli("sample", SEVEN, *student, "--out", tmp_path / "a.png")
    assert ended.code == 2 and "the network's weights are those of --checkpoint" in ended.error


def unsealed(path):
    """What `salt_zoo.json` holds, without digests."""
    content = json.loads(path.read_text())
    return {key: value for key, value in content.items() if key not in ("digest", "files")}


def test_a_students_config_that_was_changed(student, cli, tmp_path):
    path = student / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eps": 1e-2}))
    command = ("sample", SEVEN, "--checkpoint", student, "--out", tmp_path / "a.png")
    ended = cli(*command)
    assert ended.code == 2 and f"{path}: damaged (its content has changed" in ended.error
    record = student / "salt_zoo.json"
    record.write_text(json.dumps(unsealed(record)))  # as an older version has saved it
    ended = cli(*command)
    assert ended.code == 2 and f"{path}: eps is 0.01, expected 1e-06" in ended.error


def test_a_student_remembers_how_it_is_sampled(picture, student, cli, tmp_path):
    path = student / "salt_zoo.json"
    saved = unsealed(path)
    assert saved["sampling"] == {"timestep_shift": 5.0}
    own = {"steps": 2, "sampler": "ode", "timestep_shift": 3.0}
    path.write_text(json.dumps({**saved, "sampling": own}))
    told = ("--nfe", 2, "--sampler", "ode", "--shift", 3)
    remembered = picture(SEVEN, "--checkpoint", student)
    assert np.array_equal(remembered, picture(SEVEN, "--checkpoint", student, *told))
    assert not np.array_equal(remembered, picture(SEVEN, "--checkpoint", student, "--nfe", 3))
    for wrong, words in (({"steps": 0}, "sampling.steps"), ([3], "damaged")):
        path.write_text(json.dumps({**saved, "sampling": wrong}))
        ended = cli("sample", SEVEN, "--checkpoint", student, "--out", tmp_path / "a.png")
        assert ended.code == 2 and str(path) in ended.error and words in ended.error


def test_videos_that_are_not_finite(trained, cli, tmp_path, monkeypatch):
    from salt_zoo_digits.size import DigitsSize

    monkeypatch.setattr(DigitsSize, "decode_video", lambda self, latents: latents / 0)
    out = tmp_path / "out" / "a.png"
    ended = cli("sample", SEVEN, "--checkpoint", trained, "--out", out)
    assert ended.code == 2 and f"prompt {SEVEN!r}: the video is not finite" in ended.error
    assert "--precision fp32" in ended.error and not out.parent.exists()


# --- many prompts ---


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_file_a_video(trained, cli, tmp_path):
    listed = tmp_path / "prompts.csv"
    listed.write_text(f"n,prompt\n1,{SEVEN}\n2,{THREE}\n")
    out = tmp_path / "videos"
    student = ("--checkpoint", trained, "--out", out, "--nfe", 1)
    ended = cli("sample", "--prompts", listed, "--per-prompt", 2, *student)
    names = [
        *("00000-a-7-moving-up-left-slowly-0.mp4", "00000-a-7-moving-up-left-slowly-1.mp4"),
        *("00001-a-3-moving-right-quickly-0.mp4", "00001-a-3-moving-right-quickly-1.mp4"),
    ]
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [str(out / name) for name in names]
    assert sorted(os.listdir(out)) == names
    videos = [frames_of(out / name) for name in names]
    assert not np.array_equal(videos[0], videos[1])
    # the place in a list changes nothing, and one that is listed twice goes on counting
    ended = cli(
        "sample", THREE, THREE, *student[:-4], "--out", out, "--nfe", 1, "--names", "vbench"
    )
    assert ended.code == 0
    for number in (0, 1):
        assert np.array_equal(frames_of(out / f"{THREE}-{number}.mp4"), videos[2 + number])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no prompt; give one or more, or --prompts FILE"),
        ((SEVEN, "--prompts", "LIST"), "cannot be combined with prompts"),
        ((SEVEN, "--column", "prompt"), "needs --prompts"),
        (("--prompts", "LIST", "--column", "x"), "lines of text, which have no column 'x'"),
        (("--prompts", "none.txt"), "--prompts none.txt: there is no such file"),
        ((SEVEN, "--per-prompt", 0), "--per-prompt 0: must be at least 1"),
        ((SEVEN, "--per-prompt", 65), "at most 64 videos side by side, not 65"),
        ((SEVEN, "--names", "vbench"), "--names: is of files in a folder"),
        ((SEVEN, "--format", "gif"), "--format: is of files in a folder"),
        ((SEVEN, "a dog"), "'a dog'"),
    ],
)
def test_wrong_lists(arguments, words, trained, cli, tmp_path):
    (tmp_path / "list.txt").write_text(SEVEN)
    given = [tmp_path / "list.txt" if one == "LIST" else one for one in arguments]
    ended = cli("sample", *given, "--checkpoint", trained, "--out", tmp_path / "out" / "a.gif")
    assert ended.code == 2 and words in ended.error
    assert os.listdir(tmp_path) == ["list.txt"]


def test_a_prompt_that_cannot_be_a_name(trained, cli, tmp_path):
    (tmp_path / "list.txt").write_text("a/b")
    out = ("--checkpoint", trained, "--out", tmp_path / "out")
    ended = cli("sample", "--prompts", tmp_path / "list.txt", "--names", "vbench", *out)
    assert ended.code == 2 and "'a/b': cannot be a file's name (it has '/')" in ended.error
    (tmp_path / "list.txt").write_text("x" * 1_000_000)
    ended = cli("sample", "--prompts", tmp_path / "list.txt", *out)
    assert ended.code == 2 and len(ended.error) < 400
    assert os.listdir(tmp_path) == ["list.txt"]


def test_a_folder_that_is_not_there_yet(student, cli, tmp_path):
    out = tmp_path / "videos.mp4"  # the / says that it is a folder
    ended = cli("sample", SEVEN, "--checkpoint", student, "--out", f"{out}/", "--format", "png")
    assert ended.code == 0, ended.err
    assert [str(path) for path in out.iterdir()] == ended.out.split()
    assert len(ended.out.split()) == 1 and ended.out.strip().endswith(".png")


def test_text_of_set_is_as_written(cli, tmp_path):
    ended = cli(
        "stream", SEVEN, "--backbone", "self-forcing", "--size", "digits", "--frames", 9,
        "--set", f"backbone.initial={tmp_path}/2026 #3", "--out", tmp_path / "a.mp4",
    )  # fmt: skip
    assert ended.code == 2 and f"{tmp_path}/2026 #3: there is no such file" in ended.error
