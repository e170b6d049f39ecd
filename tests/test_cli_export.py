"""`salt-zoo export`: a student as a file of other codes, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import safetensors.torch
import torch
import yaml
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo.cli import main
from salt_zoo_wan.checkpoint.formats import original_name
from tests.plugins.test_wan_checkpoint_files import WAN

pytestmark = pytest.mark.usefixtures("one_zoo")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, teacher):
    """The folder of a run of two updates."""
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


@pytest.fixture
def expected(trained):
    """The student's tensors under Wan's names."""
    saved = trained / "student" / "transformer" / "diffusion_pytorch_model.safetensors"
    state = safetensors.torch.load_file(saved)
    return {original_name(key): value for key, value in state.items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("place", ["", "student", "student/salt_zoo.json"])
def test_plain_names(place, trained, expected, cli, tmp_path):
    out = tmp_path / "deep" / "student.safetensors"
    ended = cli("export", "--checkpoint", trained / place, "--format", "wan", "--out", out)
    assert (ended.code, ended.out, ended.err) == (0, f"{out}\n", "")
    assert os.listdir(out.parent) == [out.name]
    assert same(safetensors.torch.load_file(out), expected)


@pytest.mark.parametrize(
    ("format", "entry"), [("self-forcing", "generator"), ("self-forcing-ema", "generator_ema")]
)
def test_the_format_of_self_forcing(format, entry, trained, expected, cli, tmp_path):
    out = tmp_path / "student.pt"
    ended = cli("export", "--checkpoint", trained, "--format", format, "--out", out)
    assert (ended.code, ended.out, ended.err) == (0, f"{out}\n", "")
    content = torch.load(out, weights_only=True)
    assert list(content) == [entry]
    assert same(content[entry], {f"model.{key}": value for key, value in expected.items()})


@pytest.mark.parametrize(
    ("arguments", "name", "words"),
    [
        (("--format", "wann"), "a.safetensors", "'wann': unknown; did you mean 'wan'?"),
        (("--format", "wan"), "a.pt", "a file of the format 'wan' ends in .safetensors"),
        (("--format", "self-forcing"), "a.bin", "ends in .pt or .pth"),
        (("--format", "wan", "--set", "backbone.sizes=x"), "a.safetensors", "unknown key"),
        (("--format", "wan", "--set", "backbon.size=x"), "a.safetensors", "did you mean"),
    ],
)
def test_wrong_options(arguments, name, words, trained, cli, tmp_path):
    out = tmp_path / "out" / name
    ended = cli("export", "--checkpoint", trained, *arguments, "--out", out)
    assert ended.code == 2 and words in ended.error
    assert not out.parent.exists()


def test_wrong_checkpoints(student, cli, tmp_path):
    def error(checkpoint):
        out = tmp_path / "out" / "a.safetensors"
        ended = cli("export", "--checkpoint", checkpoint, "--format", "wan", "--out", out)
        assert ended.code == 2 and not out.parent.exists()
        return ended.error

    assert "there is no such folder" in error(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no student was saved there" in error(tmp_path / "empty")
    weights = student / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "damaged (its content has changed" in error(student)
    (student / "salt_zoo.json").write_text("{")
    assert "damaged" in error(student)


def test_a_backbone_without_other_formats(student, cli, tmp_path):
    plugin = tmp_path / "plain.py"
    plugin.write_text(
        """
from salt_zoo import hookimpl
from tests.gaussian.plugin import GaussianBackbone

@hookimpl
def register(zoo):
    zoo.backbones.add("plain", GaussianBackbone, "saves in one form")
"""
    )
    saved = json.loads((student / "salt_zoo.json").read_text())
    saved["run"]["backbone"] = {"name": "plain"}
    del saved["digest"]
    (student / "salt_zoo.json").write_text(json.dumps(saved))
    out = tmp_path / "a.safetensors"
    ended = cli("export", "--checkpoint", student, "--format", "wan", "--out", out, "-p", plugin)
    assert ended.code == 2 and "backbone 'plain' has no other formats" in ended.error
    assert not out.exists()


def test_places_that_cannot_be_written(student, cli, tmp_path):
    def error(out):
        ended = cli("export", "--checkpoint", student, "--format", "wan", "--out", out)
        assert ended.code == 2
        return ended.error

    weights = student / "transformer" / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    assert "is a part of the checkpoint" in error(weights)
    assert weights.read_bytes() == before
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in error(tmp_path / "file" / "a.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "cannot be written" in error(tmp_path / "folder.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.safetensors", "student"]


def test_a_full_disk_leaves_what_was_there(student, cli, tmp_path, monkeypatch):
    out = tmp_path / "out" / "a.safetensors"
    out.parent.mkdir()
    out.write_text("before")

    def full(tensors, draft, metadata):
        draft.write_text("half")
        raise OSError(28, "No space left on device", str(draft))

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    ended = cli("export", "--checkpoint", student, "--format", "wan", "--out", out)
    assert ended.code == 1 and "free some space" in ended.error
    assert os.listdir(out.parent) == ["a.safetensors"] and out.read_text() == "before"


def test_required_arguments(cli, capsys):
    with pytest.raises(SystemExit) as error:
        cli("export", "--format", "wan")
    assert error.value.code == 2 and "--checkpoint" in capsys.readouterr().err


# --- students of other codes: converted from each format into each ---

FORMATS = {"wan": "w.safetensors", "self-forcing": "w.pt", "self-forcing-ema": "e.pt"}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *(("wan", "diffusers"), ("self-forcing", "wan"), ("self-forcing-ema", "self-forcing")),
        *(("diffusers", "wan"), ("diffusers", "self-forcing-ema"), ("wan folder", "diffusers")),
    ],
)
def test_foreign_students_are_converted(source, target, trained, expected, cli, tmp_path):
    given = tmp_path / FORMATS.get(source, source)
    student = trained / "student" / "transformer"
    if source == "diffusers":
        shutil.copytree(student, given)
    elif source == "wan folder":
        given.mkdir()
        safetensors.torch.save_file(expected, given / "diffusion_pytorch_model.safetensors")
        (given / "config.json").write_text(json.dumps(WAN))
    else:
        cli("export", "--checkpoint", trained, "--format", source, "--out", given)
    out = tmp_path / "out" / FORMATS.get(target, "folder")
    ended = cli("export", "--checkpoint", given, "--format", target, "--out", out)
    assert (ended.code, ended.out, ended.err) == (0, f"{out}\n", "")
    assert os.listdir(out.parent) == [out.name]
    if target == "diffusers":
        loaded = WanTransformer3DModel.from_pretrained(out).state_dict()
        assert same({original_name(key): value for key, value in loaded.items()}, expected)
    elif target == "wan":
        assert same(safetensors.torch.load_file(out), expected)
    else:
        (content,) = torch.load(out, weights_only=True).values()
        assert same(content, {f"model.{key}": value for key, value in expected.items()})


def test_a_foreign_student_of_no_known_size(expected, cli, tmp_path):
    def error(change):
        torch.save(change(dict(expected)), tmp_path / "w.pt")
        out = tmp_path / "a.safetensors"
        ended = cli("export", "--checkpoint", tmp_path / "w.pt", "--format", "wan", "--out", out)
        assert ended.code == 2 and not out.exists()
        return ended.error

    wider = {"patch_embedding.weight": torch.zeros(96, 11, 1, 4, 4)}
    text = error(lambda state: state | wider)
    assert "4 blocks of width 96 with 11 input channels" in text and "digits: 4 blocks" in text
    assert "a LoRA" in error(lambda state: {"x.lora_A.weight": torch.zeros(2, 2)})
    assert "not a Wan transformer" in error(lambda state: {"x.y": torch.zeros(2, 2)})
    bad = {"head.head.bias": torch.full_like(expected["head.head.bias"], float("nan"))}
    assert "'head.head.bias' has 16 of 16 numbers that are not finite" in error(lambda s: s | bad)


@pytest.mark.parametrize("key", ["memory=window", "initial=x.pt", "teacher.size=digits"])
def test_options_that_an_export_does_not_use(key, trained, cli, tmp_path):
    out = tmp_path / "a.safetensors"
    cli("export", "--checkpoint", trained, "--format", "wan", "--out", tmp_path / "w.safetensors")
    ended = cli(
        *("export", "--checkpoint", tmp_path / "w.safetensors", "--format", "wan", "--out", out),
        *("--backbone", "self-forcing", "--set", f"backbone.{key}"),
    )
    assert ended.code == 2 and "export does not use it" in ended.error and not out.exists()


def test_a_folder_with_something_in_it_is_kept(trained, cli, tmp_path):
    (tmp_path / "kept").write_text("x")
    ended = cli("export", "--checkpoint", trained, "--format", "diffusers", "--out", tmp_path)
    assert ended.code == 2 and "not empty" in ended.error
    out = tmp_path / "w.pt"
    ended = cli("export", "--checkpoint", trained, "--format", "diffusers", "--out", out)
    assert ended.code == 2 and "is a folder; name one" in ended.error
    assert os.listdir(tmp_path) == ["kept"]
