"""Variables of a launcher that were left in the environment: a line, and no training of nobody."""

from __future__ import annotations

import os
import socket

import pytest

from salt_zoo.cli import guarded
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.launchers import check_meeting
from salt_zoo.core.base.ranks import world_size
from salt_zoo.training.devices import _chosen, find_device

pytestmark = pytest.mark.usefixtures("one_zoo")

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "x", "MASTER_PORT": "1"}


@pytest.fixture
def variables(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"RANK": "1"}, "RANK: 1 in the environment, and there is no WORLD_SIZE"),
        ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK: 5 in the environment, and WORLD_SIZE is 2"),
        ({"RANK": "x"}, "RANK: 'x' in the environment is no number"),
        ({"RANK": ""}, "RANK: '' in the environment is no number"),
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE: 'x' in the environment is no number"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE: '' in the environment is no number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: 0 in the environment is no number of processes"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE: '-1' in the environment is no number"),
        ({"LOCAL_RANK": "1_0"}, "LOCAL_RANK: '1_0' in the environment is no number"),
    ],
)
def test_what_is_no_run_is_one_line(values, said, variables, capsys):
    variables(**values)
    ran = []
    assert guarded(lambda: ran.append(1)) == 2 and not ran
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "torchrun" in error


def test_an_error_where_nobody_listens_is_one_line(variables, tmp_path, forked):
    """The pod of another job: torch would try for long, and write of every try."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        port = str(taken.getsockname()[1])
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ended = forked(
            *("-m", "salt_zoo", "train", tmp_path / "none.yaml", "--out", tmp_path / "out"),
            environment={"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", **place},
        )
    assert ended.code == 2 and "none.yaml: there is no such file" in ended.error


@pytest.mark.parametrize("values", [{}, WHOLE, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_what_torchrun_writes_is_a_run(values, variables, capsys):
    variables(**values)
    assert guarded(lambda: 0) == 0 and capsys.readouterr().err == ""
    assert world_size() == int(values.get("WORLD_SIZE", 1))
    check_meeting()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        *(
            ({k: v for k, v in WHOLE.items() if k != name}, f"there is no {name}")
            for name in WHOLE
            if name != "WORLD_SIZE"
        ),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK: 3 in the environment, and there is no RANK"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE: 4 in the environment"),
        ({"PMI_SIZE": "4"}, "PMI_SIZE: 4 in the environment"),
    ],
)
def test_nobody_waits_for_others_it_cannot_meet(values, said, variables):
    variables(**values)
    with pytest.raises(ZooError, match=said):
        check_meeting()


def test_a_training_that_nobody_would_save(variables, cli, write_run, tmp_path):
    """It went on to its end, saved nothing, and its exit code was 0."""
    variables(RANK="1")
    ended = cli("train", write_run(), "--out", tmp_path / "out")
    assert ended.code == 2 and not (tmp_path / "out").exists()
    variables(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
    ended = cli("train", write_run(), "--out", tmp_path / "out")
    assert ended.code == 2 and not (tmp_path / "out").exists()
    assert "there is no MASTER_ADDR" in ended.error


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("USE_DEEPSPEED", "true", "'true' is not used; execution.shard of a run decides"),
        ("USE_FSDP", "1", "'1' is not used; execution.shard of a run decides"),
        ("MIXED_PRECISION", "fp16", "'fp16' is not used; training.precision of a run decides"),
        ("GRADIENT_ACCUMULATION_STEPS", "4", "'4' is not used; execution.micro_batch of a run"),
        ("DYNAMO_BACKEND", "maybe", "'maybe' is not used"),
    ],
)
def test_a_computation_that_accelerates_launcher_asks_for(
    name, value, said, variables, cli, write_run, tmp_path
):
    """As its configuration file would have it: a line, and the same run."""
    variables(**{f"ACCELERATE_{name}": value})
    ended = cli("train", write_run(training={"updates": 1}), "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert ended.err.count(f"note: ACCELERATE_{name}={said}") == 1


def test_what_accelerates_launcher_writes_by_itself_is_no_line(variables, capsys):
    variables(ACCELERATE_MIXED_PRECISION="no", ACCELERATE_DYNAMO_BACKEND="NO")
    variables(ACCELERATE_USE_FSDP="false", ACCELERATE_GRADIENT_ACCUMULATION_STEPS="1")
    assert guarded(lambda: 0) == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["ACCELERATE_TORCH_DEVICE", "ACCELERATE_USE_CPU"])
def test_accelerates_own_choice_of_a_device_is_not_ours(name, variables):
    variables(**{name: "maybe"}, ACCELERATE_DEBUG_MODE="1")
    with _chosen(find_device("cpu")):
        assert name not in os.environ and os.environ["ACCELERATE_DEBUG_MODE"] == "1"
    assert os.environ[name] == "maybe"
