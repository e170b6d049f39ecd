"""A saved student whose files are not those that were saved is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.training.state.networks import Networks
from salt_zoo.training.students import RECORD, check_student, save_student

FILES = (RECORD, "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, zoo) -> Path:
    """The untrained student of the size `digits`."""
    content = {"method": "consistency", "backbone": "wan", "dataset": "digits"}
    run = resolve(content, zoo, "test")
    backbone = zoo.backbones.create("wan", run.backbone, zoo)
    networks = Networks(
        {"student": NetworkSpec("student", learning_rate=1e-3)}, backbone, run.config.training, 0
    )
    trainer = SimpleNamespace(backbone=backbone, networks=networks, cost=lambda: {"updates": 0})
    return save_student(trainer, run, tmp_path_factory.mktemp("students") / "student")


@pytest.fixture
def student(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "student")


def test_a_whole_student(student):
    assert check_student(student) == student
    (student / "README.md").write_text("a note beside it")
    assert check_student(student) == student


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("file", FILES)
def test_every_flipped_bit_is_found(file, place, student):
    content = bytearray((student / file).read_bytes())
    content[int(place * (len(content) - 2))] ^= 1
    (student / file).write_bytes(content)
    with pytest.raises(ZooError) as caught:
        check_student(student)
    assert str(student / file) in str(caught.value) and "damaged (" in str(caught.value)
    assert "'salt-zoo train'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("file", FILES)
def test_every_lost_file_is_found(file, student):
    (student / file).unlink()
    with pytest.raises(ZooError, match="No such file"):
        check_student(student)


@pytest.mark.parametrize(("key", "value"), [("num_layers", 3), ("eps", 1e-2), ("nope", 1)])
def test_another_configuration_of_the_network(key, value, student):
    path = student / FILES[1]
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ZooError, match=r"config\.json: damaged"):
        check_student(student)


def test_a_student_of_an_older_version(student):
    """It has no digests; nothing is known of it."""
    content = json.loads((student / RECORD).read_text())
    del content["files"], content["digest"]
    (student / RECORD).write_text(json.dumps(content))
    assert check_student(student) == student


def test_a_record_that_was_edited_says_how_to_go_on(student):
    content = json.loads((student / RECORD).read_text())
    content["run"]["seed"] = 5
    (student / RECORD).write_text(json.dumps(content))
    with pytest.raises(ZooError, match="if it was changed on purpose, delete its key 'digest'"):
        check_student(student)
    del content["digest"]
    (student / RECORD).write_text(json.dumps(content))
    assert check_student(student) == student


@pytest.mark.parametrize("command", ["sample", "export"])
def test_commands_refuse_it(command, student, cli, tmp_path):
    weights = student / FILES[2]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    arguments = {
        "sample": ("a 7 moving left slowly", "--out", tmp_path / "a.png"),
        "export": ("--format", "wan", "--out", tmp_path / "a.safetensors"),
    }[command]
    ended = cli(command, "--checkpoint", student, *arguments)
    assert ended.code == 2 and f"{weights}: damaged (" in ended.error
    assert not list(tmp_path.glob("a.*"))
