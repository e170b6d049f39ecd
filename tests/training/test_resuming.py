"""What a run may go on from: its own whole checkpoints, prolonged or split otherwise."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from salt_zoo.config.identity import differences, identity
from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.checkpoints.checkpoint import newest_whole
from tests.training.small_runs import digits_run
from tests.training.test_resume import Stopped, assert_equal_checkpoints, stop_at

NEWEST = Path("checkpoints", "step-000004")


@pytest.fixture
def whole(digits_alone) -> Path:
    """A finished run of 4 updates with checkpoints of updates 2 and 4."""
    return digits_alone.folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_run_may_be_prolonged(copy, train, tmp_path):
    train(copy, training={"updates": 6})
    train(tmp_path / "whole", training={"updates": 6})
    newest = Path("checkpoints", "step-000006")
    assert_equal_checkpoints(tmp_path / "whole" / newest, copy / newest)


def test_a_run_whose_rate_falls_may_be_prolonged_before_it_does(train, tmp_path):
    falling = {"schedule": {"decay_from": 0.5}, "checkpoint_every": 1}
    with pytest.raises(Stopped):
        train(tmp_path / "parts", progress=stop_at(3), training={"updates": 6, **falling})
    train(tmp_path / "parts", training={"updates": 8, **falling})
    train(tmp_path / "whole", training={"updates": 8, **falling})
    newest = Path("checkpoints", "step-000008")
    assert_equal_checkpoints(tmp_path / "whole" / newest, tmp_path / "parts" / newest)
    with pytest.raises(ZooError, match=r"updates: 8 there, 12 here.*decay_from=0.5 update 6 of"):
        train(tmp_path / "parts", training={"updates": 12, **falling})


@pytest.mark.parametrize(
    "training",
    [
        {"log_every": 3, "checkpoint_every": 1, "trackers": ["tensorboard"]},
    ],
)
def test_a_run_may_be_watched_otherwise(training, copy, train):
    shutil.rmtree(copy / NEWEST)
    train(copy, training=training)
    assert (copy / NEWEST).is_dir()


def test_a_run_may_be_split_otherwise(copy, whole, train, capsys):
    shutil.rmtree(copy / NEWEST)
    train(copy, execution={"micro_batch": 1})
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"note: resuming after update 2 of 4 ({copy / 'checkpoints' / 'step-000002'})"
    name = NEWEST / "student.safetensors"
    a, b = (safetensors.torch.load_file(folder / name) for folder in (whole, copy))
    assert max((a[key] - b[key]).abs().max() for key in a) < 1e-3


def test_every_key_that_differs_is_named_with_both_values(copy, train):
    with pytest.raises(ZooError) as caught:
        train(copy, seed=3, training={"clip": 2.0, "batch_size": 4})
    for said in ("seed: 0 there, 3 here", "clip: 10.0 there, 2.0", "batch_size: 2 there, 4"):
        assert said in str(caught.value)


@pytest.mark.parametrize("option", ["tiny_decoder", "text_cache", "codecs"])
def test_all_options_of_the_backbone_count(option, zoo):
    """Also those that change no weight."""

    def of(**options: str) -> dict:
        backbone = {"name": "wan", "size": "wan2.1-t2v-1.3b", "options": options}
        run = {"method": "dmd", "backbone": backbone, "dataset": "prompts"}
        return identity(resolve(run, zoo, "test").plain(), "fp32")

    (found,) = differences(of(), of(**{option: "somewhere"}))
    assert found.key == f"backbone.options.{option}" and found.here == "somewhere"


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


def swap(path: Path) -> None:
    """The weights of another update."""
    shutil.copy(path.parent.parent / "step-000002" / path.name, path)


DAMAGE = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "lost": lambda path: path.unlink(),
    "head": lambda path: flip(path, 0.01),
    "middle": lambda path: flip(path, 0.5),
    "end": lambda path: flip(path, 1.0),
    "swapped": swap,
}
FILES = ("student.safetensors", "student_ema.safetensors", "optimizers.pt", "state.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_set_aside(kind, file, copy):
    DAMAGE[kind](copy / NEWEST / file)
    found, (line,) = newest_whole(copy / "checkpoints")
    assert found is not None and found.step == 2
    assert f"{copy / NEWEST / file}: the checkpoint is damaged (" in line
    assert sorted(os.listdir(copy / "checkpoints")) == ["damaged-step-000004", "step-000002"]


def test_the_whole_one_is_gone_on_from(copy, whole, train, capsys):
    flip(copy / NEWEST / "student.safetensors", 0.5)
    train(copy)
    line, note = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "step-000002" in line
    assert note.startswith("note: resuming after update 2 of 4 (")
    assert_equal_checkpoints(whole / NEWEST, copy / NEWEST)


def test_without_a_whole_one_it_begins_anew_and_says_so(copy, whole, train, capsys):
    for folder in (copy / "checkpoints").iterdir():
        flip(folder / "optimizers.pt", 0.5)
    train(copy)
    first, second = capsys.readouterr().err.splitlines()
    assert "step-000004" in first and second.endswith("the training starts over")
    assert_equal_checkpoints(whole / NEWEST, copy / NEWEST)


def test_a_checkpoint_under_another_number_is_damaged(copy):
    (copy / NEWEST).rename(copy / "checkpoints" / "step-000099")
    found, lines = newest_whole(copy / "checkpoints")
    assert found is not None and found.step == 2 and "it is of update 4" in lines[0]


def test_what_is_no_checkpoint_is_left_alone(copy):
    place = copy / "checkpoints"
    for name in ("step-000٣00", "step-²", "step-9", "step-0000x4"):
        shutil.copytree(copy / NEWEST, place / name)
    (place / "step-000009").write_text("a file")
    found, lines = newest_whole(place)
    assert found is not None and found.step == 4 and not lines


def test_checkpoints_that_are_a_file(copy, train):
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").write_text("x")
    with pytest.raises(ZooError, match="checkpoints: is a file, not a folder"):
        train(copy)


def test_weights_that_have_changed_are_refused(copy, teacher, train, tmp_path):
    shutil.rmtree(copy / NEWEST)
    other = shutil.copytree(teacher, tmp_path / "teacher")
    moved = {"size": "digits", "options": {"weights": str(other)}}
    with pytest.raises(ZooError, match=r"backbone\.options\.weights: "):
        train(copy, backbone=moved)
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        train(run, progress=stop_at(3), backbone=moved)
    path = other / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["proj_out.bias"] += 1
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ZooError, match=r"the weights or the data have changed \(backbone\.teacher"):
        train(run, backbone=moved)


def test_code_that_has_changed_is_said(train, capsys, tmp_path):
    plugin, out = tmp_path / "mine.py", tmp_path / "out"
    source = """
from salt_zoo import hookimpl
from salt_zoo_flow_matching.method import TeacherForcing

class Mine(TeacherForcing):
    pass

@hookimpl
def register(zoo):
    zoo.methods.add("mine", Mine, "mine")
"""
    for edit in ("", "", "# an edit"):
        plugin.write_text(source + edit)
        zoo = load_zoo([str(plugin), "tests.sizes.plugin"])
        train(out, zoo=zoo, method={"name": "mine"})
        said = capsys.readouterr().err
        assert ("warning: " in said) == bool(edit)
    assert "resumes with other code than its checkpoint's (method mine)" in said


def test_run_yaml_makes_the_same_run(whole, train, zoo, tmp_path):
    written = yaml.safe_load((whole / "run.yaml").read_text())
    assert resolve(written, zoo, "run.yaml").plain() == written
    train(tmp_path / "again", **written)
    assert_equal_checkpoints(whole / NEWEST, tmp_path / "again" / NEWEST)


def test_run_yaml_is_there_before_the_networks(tmp_path, teacher, zoo, monkeypatch):
    """A run that is killed while its weights are loaded has said what it was to be."""
    from salt_zoo.training import launch, trainer

    def die(*arguments, **more):
        raise SystemExit

    monkeypatch.setattr(trainer, "Networks", die)
    with pytest.raises(SystemExit):
        launch.train(resolve(digits_run(teacher), zoo, "test"), tmp_path / "out", zoo, "cpu")
    assert os.listdir(tmp_path / "out") == ["run.yaml"]


def test_two_checkpoints_of_one_state_are_the_same_bytes(whole, train, tmp_path):
    train(tmp_path / "again")
    for name in FILES[:3]:
        assert (whole / NEWEST / name).read_bytes() == (
            tmp_path / "again" / NEWEST / name
        ).read_bytes()


def test_optimizer_states_are_held_once(whole, train, tmp_path):
    """The tensors that were read are the optimizer's own."""
    from salt_zoo.training.checkpoints.checkpoint import load_checkpoint

    trainer = train(tmp_path / "again")
    read = []
    real = torch.load

    def load(*arguments, **more):
        read.append(real(*arguments, **more))
        return read[-1]

    found, _ = newest_whole(whole / "checkpoints")
    assert found is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", load)
        load_checkpoint(found, trainer.networks, "cpu")
    (optimizer,) = trainer.networks.optimizers["student"]
    held = {value.data_ptr() for state in optimizer.state.values() for value in state.values()}
    (saved,) = read[0]["student"]
    for state in saved["state"].values():
        assert all(value.data_ptr() in held for value in state.values() if value.ndim)
