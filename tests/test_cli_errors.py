"""Mistakes and mishaps of `salt-zoo train`: one line each, nothing half-written, work kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from salt_zoo.plugin.isolation.foreign import ForeignError

NAN = '''
"""The method `nan`: flow matching whose loss is NaN from the third update on."""

from salt_zoo import hookimpl
from salt_zoo_flow_matching.method import TeacherForcing


class Nan:
    Config = TeacherForcing.Config
    needs_data = True

    def __init__(self, config, zoo):
        self.inner = TeacherForcing(config, zoo)
        self.roles, self.update_order = self.inner.roles, self.inner.update_order

    def train(self, step):
        logs = self.inner.train(step)
        if step.index >= 2:
            logs = {"loss": logs["loss"] * float("nan")}
        return logs


@hookimpl
def register(zoo):
    zoo.methods.add("nan", Nan, "not a number")
'''


@pytest.fixture
def mistake(cli, tmp_path):
    """Runs `salt-zoo train`, which must end with one error line and without a folder of the run."""

    def run(config: Path, *arguments: object, out: Path = tmp_path / "out", keeps: bool = False):
        ended = cli("train", config, "--out", out, *arguments)
        assert ended.code == 2, ended.err
        assert ended.error.startswith("error: ") and ended.out == ""
        assert keeps or not out.exists()
        return ended.error

    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": {"name": "teacher-focing"}},
            "unknown method 'teacher-focing'; did you mean 'teacher-forcing'?",
        ),
        ({"backbone": {"name": "wam"}}, "unknown backbone 'wam'; did you mean 'wan'?"),
        ({"dataset": "digitz"}, "unknown dataset 'digitz'; did you mean 'digits'?"),
        (
            {"method": {"lerning_rate": 1}},
            "method.lerning_rate: unknown key; did you mean 'learning_rate'?",
        ),
        ({"method": {"learning_rate": "fast"}}, "method.learning_rate: should be a valid number"),
        (
            {"method": {"learning_rate": -1}},
            "method.learning_rate: should be greater than 0, not -1",
        ),
        (
            {"method": {"start": "techer"}},
            "method.start: should be 'teacher', 'student' or 'random', not 'techer'",
        ),
        ({"training": {"updtes": 3}}, "training.updtes: unknown key; did you mean 'updates'?"),
        ({"training": {"updates": 1.5}}, "training.updates: should be a valid integer"),
        (
            {"training": {"trackers": ["tensorbord"]}},
            "training.trackers.0: should be 'tensorboard' or 'wandb'",
        ),
        ({"trainning": {}}, "trainning: unknown key; did you mean 'training'?"),
        ({"seed": "x"}, "seed: should be a valid integer"),
    ],
)
def test_wrong_configurations(changes, message, write_run, mistake):
    path = write_run(**changes)
    error = mistake(path)
    assert error.startswith(f"error: {path}: ") or "unknown " in error
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "training.updates=x"), "training.updates: should be a valid integer"),
        (("--set", "training.updates"), "write KEY=VALUE"),
        (("--device", "gpu"), "--device gpu: unknown device"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--device", "cpu:5"), "--device cpu:5: there is one CPU; write cpu"),
        (("--device", "gpu", "--dry-run"), "--device gpu: unknown device"),
        (
            ("--set", "execution.prepared_text=nowhere"),
            "execution.prepared_text: nowhere: there is no such folder",
        ),
        (
            ("--set", f"execution.prepared_text={__file__}"),
            f"execution.prepared_text: {__file__}: is a file, not such a folder",
        ),
        (("--set", "dataset={name: prepared, folder: nowhere}"), "dataset.folder: nowhere: there"),
        (("-p", "missing.py"), "-p missing.py: there is no such file"),
    ],
)
def test_wrong_arguments(arguments, message, write_run, mistake):
    assert message in mistake(write_run(), *arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"training": {"optimizers": {"studend": {"learning_rate": 1e-3}}}},
            "training.optimizers.studend: the method trains no network of that name",
        ),
        (
            {"execution": {"micro_batch": 3}},
            "execution.micro_batch: training.batch_size 2 cannot be split over 1 process in passes",
        ),
        (
            {"execution": {"sequence": 3}},
            "execution.sequence: 4 attention heads cannot be shared by 3 processes; "
            "write 1, 2 or 4",
        ),
        (
            {"execution": {"sequence": 2}},
            "execution.sequence: 1 process cannot be split into groups of 2; start a multiple of 2",
        ),
        ({"training": {"trackers": ["wandb"]}}, "training.trackers: wandb is not installed"),
        ({"quality": {"every": 1, "metrics": ["digits-fdd"]}}, "did you mean 'digits-fd'"),
        ({"quality": {"every": 1}}, "quality: metrics: name at least one"),
        ({"method": {"name": "cda"}}, "this backbone is bidirectional"),
        ({"training": {"batch_size": 10**30}}, "training.batch_size"),
        ({"training": {"updates": True}}, "training.updates: should be a number, not True"),
        ({"training": {"ema": "off"}}, "training.ema: should be a group of keys, not 'of"),
        ({"training": {"ema": "off"}}, "to switch it off, write null"),
        (
            {"training": {"optimizers": {"student": {"betas": [1, 1]}}}},
            "training.optimizers.student.betas.0: should be less than 1",
        ),
    ],
)
def test_what_cannot_train_is_refused_before_the_folder_is_made(
    changes, message, write_run, mistake
):
    assert message in mistake(write_run(**changes))


def test_a_missing_and_an_invalid_file(mistake, tmp_path):
    assert "missing.yaml: there is no such file" in mistake(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("method: [dmd\nbackbone: wan")
    assert "bad.yaml, line 2: not valid YAML" in mistake(tmp_path / "bad.yaml")


@pytest.mark.parametrize("below", ["", "folder", "folder/deeper"])
def test_a_folder_that_cannot_be_written(below, write_run, mistake, tmp_path):
    (tmp_path / "file").write_text("kept")
    out = tmp_path / "file" / below
    error = mistake(write_run(), out=out, keeps=True)
    assert str(out) in error and "is a file, not a folder); choose another path" in error
    assert (tmp_path / "file").read_text() == "kept"


# --- weights of the teacher ---


@pytest.fixture
def damaged_teacher(teacher, tmp_path):
    return shutil.copytree(teacher, tmp_path / "teacher")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", lambda path: path.unlink()),
        ("config.json", truncate),
        ("diffusion_pytorch_model.safetensors", lambda path: path.unlink()),
        ("diffusion_pytorch_model.safetensors", truncate),
    ],
)
def test_a_damaged_teacher(name, damage, damaged_teacher, write_run, mistake):
    damage(damaged_teacher / name)
    options = {"options": {"weights": str(damaged_teacher)}}
    error = mistake(write_run(backbone=options))
    assert str(damaged_teacher) in error and "salt-zoo pretrain" in error


def test_a_missing_teacher(write_run, mistake, tmp_path):
    options = {"options": {"weights": str(tmp_path / "nowhere")}}
    assert "nowhere: there is no teacher" in mistake(write_run(backbone=options))


def test_misspelt_options_of_the_size(write_run, mistake):
    error = mistake(write_run(backbone={"options": {"weihgts": "x"}}))
    assert "weihgts: unknown key; did you mean 'weights'?" in error


# --- checkpoints of an earlier, interrupted command ---


@pytest.fixture
def interrupted(write_run, cli, tmp_path):
    """The configuration and folder of a run that has only its checkpoint of update 4."""
    config, out = write_run(), tmp_path / "out"
    assert cli("train", config, "--out", out).code == 0
    shutil.rmtree(out / "student")
    shutil.rmtree(out / "checkpoints" / "step-000002")
    return config, out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"method": {"learning_rate": 2e-3}}, "method.learning_rate: 0.001 there, 0.002 here"),
        ({"training": {"updates": 3}}, "training.updates: 4 there, 3 here, and 4 are done"),
        (
            {"training": {"updates": 6, "schedule": {"decay_from": 0.5}}},
            "training.schedule.decay_from: 1.0 there, 0.5 here",
        ),
    ],
)
def test_the_folder_of_another_configuration(changes, said, interrupted, write_run, mistake):
    _, out = interrupted
    before = (out / "run.yaml").read_bytes()
    error = mistake(write_run(**changes), out=out, keeps=True)
    assert f"{out}: " in error and said in error
    assert "choose another folder" in error
    assert (out / "run.yaml").read_bytes() == before


# --- a run that goes wrong by itself: exit code 1 ---


def test_a_loss_that_is_not_a_number(write_run, forked, tmp_path):
    plugin, out = tmp_path / "nan.py", tmp_path / "out"
    plugin.write_text(NAN)
    config = write_run(method={"name": "nan"})
    ended = forked("-m", "salt_zoo", "train", config, "--out", out, "--device", "cpu", "-p", plugin)
    assert (ended.code, ended.out) == (1, "")
    assert "update 3: student/loss is nan" in ended.error
    assert "training.optimizers.student.learning_rate" in ended.error
    assert str(out / "checkpoints" / "step-000002") in ended.error
    assert f"with another --out, or here once {out / 'checkpoints'} is deleted" in ended.error
    assert sorted(os.listdir(out)) == ["checkpoints", "run.yaml"]
    assert os.listdir(out / "checkpoints") == ["step-000002"]


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path, capsys):
    """Whoever opens it, and wherever."""
    from salt_zoo.cli import guarded

    file = tmp_path / "nowhere" / "x"
    assert guarded(lambda: file.write_text("x")) == 1
    assert capsys.readouterr().err == f"error: {file}: No such file or directory\n"


def test_no_memory(write_run, cli, tmp_path):
    plugin = tmp_path / "greedy.py"
    plugin.write_text(
        NAN.replace('logs = {"loss": logs["loss"] * float("nan")}', "raise MemoryError")
    )
    config = write_run(method={"name": "nan"})
    ended = cli("train", config, "--out", tmp_path / "out", "-p", plugin)
    assert ended.code == 1 and "not enough memory" in ended.error
    assert "a smaller execution.micro_batch" in ended.error


def test_a_bug_of_a_plugin_is_a_line_and_on_demand_its_traceback(
    write_run, cli, tmp_path, monkeypatch
):
    plugin = tmp_path / "buggy.py"
    plugin.write_text(NAN.replace('logs = {"loss": logs["loss"] * float("nan")}', "1 / 0"))
    command = ["train", write_run(method={"name": "nan"}), "--out", tmp_path / "out", "-p", plugin]
    ended = cli(*command)
    assert ended.code == 1
    assert f"error: method 'nan' of plugin '{plugin}'" in ended.error
    assert "in step 3: ZeroDivisionError: division by zero" in ended.error
    monkeypatch.setenv("SALT_ZOO_TRACEBACK", "1")
    with pytest.raises(ForeignError) as caught:
        cli(*command)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_bug_anywhere_names_the_part(toys_file, cli, tmp_path, write_run):
    """Of a data set, say, which is asked in many places of ours."""
    ended = cli("train", write_run(dataset="odd"), "--out", tmp_path / "out", "-p", toys_file)
    assert ended.code == 1
    assert ended.error.startswith(f"error: dataset 'odd' of plugin '{toys_file}': KeyError: 'bug'")


def test_a_data_set_that_lacks_something(toys_file, cli, tmp_path, write_run):
    toys_file.write_text(toys_file.read_text().replace("fingerprint", "fingerprnt"))
    ended = cli("train", write_run(dataset="odd"), "--out", tmp_path / "out", "-p", toys_file)
    assert ended.code == 2 and not (tmp_path / "out").exists()
    assert "it lacks 'fingerprint'; see salt_zoo.core.protocols.Dataset" in ended.error


@pytest.fixture
def toys_file(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(
        "from salt_zoo import hookimpl\n"
        "class Odd:\n"
        "    def __init__(self, config, zoo): pass\n"
        "    def prompts(self, split): return ['a 7 moving left slowly']\n"
        "    def real(self, prompts, rng, split, frames=None): return None\n"
        "    def fingerprint(self): return {}\n"
        "    def sample(self, draws, split, videos): raise KeyError('bug')\n"
        "@hookimpl\n"
        "def register(zoo): zoo.datasets.add('odd', Odd, 'a broken data set')\n"
    )
    return path


def test_the_traceback_of_a_mistake_on_demand(cli, monkeypatch, tmp_path):
    from salt_zoo.core.base.errors import ZooError

    command = ("train", tmp_path / "missing.yaml", "--out", tmp_path / "out")
    monkeypatch.setenv("SALT_ZOO_TRACEBACK", "1")
    with pytest.raises(ZooError):
        cli(*command)
    monkeypatch.setenv("SALT_ZOO_TRACEBACK", "0")
    assert cli(*command).code == 2


def test_a_tracker_that_is_not_installed(write_run, mistake):
    import importlib.util

    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed here")
    error = mistake(write_run(training={"trackers": ["wandb"]}), keeps=True)
    assert "training.trackers: wandb is not installed; run: pip install wandb" in error
