"""A command that writes a file is given a folder, or one that writes a folder is given a file: one
line before any work, and what is there stays."""

from __future__ import annotations

import pytest

from benchmarks import perf
from benchmarks import run as study
from benchmarks.report import __main__ as rerender
from salt_zoo_self_forcing.backbone import SelfForcingBackbone
from salt_zoo_wan.backbone import WanBackbone

pytestmark = pytest.mark.usefixtures("one_zoo")

SEVEN = "a 7 moving up-left slowly"
WAN = ("--backbone", "wan", "--size", "digits")
CAUSAL = ("--backbone", "self-forcing", "--size", "digits", "--frames", 3)

#: By the name of the file, which is a folder here.
FILES = {
    "a.gif": [("sample", SEVEN, *WAN), ("stream", SEVEN, *CAUSAL)],
    "a.MP4": [("sample", SEVEN, "--per-prompt", 2, *WAN), ("stream", SEVEN, *CAUSAL)],
    "a.png": [("sample", "--prompts", "PROMPTS", *WAN), ("stream", SEVEN, *CAUSAL)],
    "a.safetensors": [
        ("export", "--checkpoint", "TEACHER", "--format", "wan"),
        ("export", "--checkpoint", "TEACHER", "--format", "lora", "--rank", 2, "--base", "TEACHER"),
    ],
    "a.pt": [("export", "--checkpoint", "TEACHER", "--format", "self-forcing")],
}

FOLDERS = {
    "train": ("train", "RUN"),
    "pretrain": ("pretrain", "digits-judge"),
    "prepare-text": ("prepare", "text", "RUN", "--set", "prompts=PROMPTS"),
    "prepare-latents": ("prepare", "latents", "RUN"),
    "prepare-trajectories": ("prepare", "trajectories", "RUN"),
    "new": ("new", "method", "my-method"),
    "export": ("export", "--checkpoint", "TEACHER", "--format", "diffusers"),
    "sample-many": ("sample", "--prompts", "PROMPTS", *WAN),
    "sample-format": ("sample", SEVEN, "--format", "png", *WAN),
}


@pytest.fixture
def refused(cli, teacher, write_run, tmp_path, monkeypatch):
    """Runs a command into `out`; nothing may change, nor any network be made."""
    (tmp_path / "prompts.txt").write_text(SEVEN)
    words = {"TEACHER": teacher, "RUN": write_run(), "PROMPTS": tmp_path / "prompts.txt"}

    def worked(*_):
        raise AssertionError("a network is made before the place is looked at")

    def run(command, out):
        known = [str(word) if word not in words else words[word] for word in map(str, command)]
        known = [str(word).replace("=PROMPTS", f"={words['PROMPTS']}") for word in known]
        before = sorted(tmp_path.rglob("*"))
        with monkeypatch.context() as patch:
            if command[0] in ("sample", "stream", "export"):
                for owner in (WanBackbone, SelfForcingBackbone):
                    patch.setattr(owner, "load", worked)
                    patch.setattr(owner, "network", worked)
            ended = cli(*known, "--out", out)
        assert ended.code == 2, ended.err
        assert sorted(tmp_path.rglob("*")) == before
        return ended.error

    return run


@pytest.mark.parametrize(
    ("name", "command"),
    [(name, command) for name, commands in FILES.items() for command in commands],
    ids=lambda one: one if isinstance(one, str) else one[0],
)
def test_a_file_that_is_a_folder(name, command, refused, tmp_path):
    out = tmp_path / name
    out.mkdir()
    error = refused(command, out)
    assert str(out) in error and "is a folder" in error
    (tmp_path / "plain").write_text("kept")
    error = refused(command, tmp_path / "plain" / name)
    assert f"{tmp_path / 'plain'} is a file, not a folder" in error
    assert (tmp_path / "plain").read_text() == "kept"


@pytest.mark.parametrize("command", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_is_a_file(command, below, refused, tmp_path):
    (tmp_path / "plain").write_text("kept")
    error = refused(command, tmp_path / "plain" / below)
    assert str(tmp_path / "plain") in error and "is a file" in error
    assert (tmp_path / "plain").read_text() == "kept"


@pytest.mark.parametrize("command", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("target", ["plain", "nowhere"])
def test_a_folder_that_is_a_broken_link(command, target, refused, tmp_path):
    """A loop, or a link to what is not there: it cannot be made a folder."""
    (tmp_path / "plain").symlink_to(target)
    error = refused(command, tmp_path / "plain")
    assert str(tmp_path / "plain") in error and "a link that leads nowhere" in error


@pytest.mark.parametrize("name", ["train", "pretrain", "prepare-text", "prepare-latents"])
def test_a_folder_of_weights_whose_name_is_not_utf8(name, refused, tmp_path):
    """safetensors takes no such path; a training was written, and could not be read."""
    command = FOLDERS[name]
    assert "its name is not UTF-8" in refused(command, tmp_path / "a\udcff")


def test_a_name_with_a_slash_is_a_folder(refused, tmp_path):
    (tmp_path / "a.mp4").write_text("kept")
    assert "is a file, not a folder" in refused(("sample", SEVEN, *WAN), f"{tmp_path}/a.mp4/")


@pytest.mark.parametrize(
    ("main", "options"),
    [(study.main, ["quick", "--out"]), (perf.main, ["--out"]), (rerender.main, [])],
    ids=["run", "perf", "report"],
)
def test_the_folder_of_a_report_that_is_a_file(main, options, tmp_path, capsys):
    (tmp_path / "plain").write_text("kept")
    assert main([*options, str(tmp_path / "plain")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "plain") in error and error.count("\n") == 1
    assert (tmp_path / "plain").read_text() == "kept"
