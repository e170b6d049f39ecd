"""Networks in main memory: the run is bitwise the one that keeps them on the device."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.planning.check import check_training
from salt_zoo.planning.fit import find_fit
from salt_zoo.planning.plan import plan_run
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train
from salt_zoo.training.state.sharding import is_sharded, whole_parts
from tests.test_matrix import ZOO
from tests.training.small_runs import DEEPER, in_bf16, name_of, run_of, sharded, with_lora

BOTH = ["frozen", "averages"]


def offloaded(run: dict[str, Any], what: list[str] = BOTH, **more: Any) -> dict[str, Any]:
    return run | {"execution": run["execution"] | {"offload": what} | more}


def trained(run: dict[str, Any], folder: Path) -> Any:
    return train(resolve(run, ZOO, "test"), folder, ZOO, "cpu")


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    networks = trainer.networks
    return {
        f"{role} {name}": value
        for role in networks
        for name, value in whole_parts(networks[role].state_dict()).items()
    }


def same(one: Any, other: Any) -> None:
    mine, its = weights(one), weights(other)
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], value) for name, value in its.items())
    for row, beside in zip(one.history, other.history, strict=True):
        assert all(row[key] == beside[key] for key in row.keys() - {"seconds"})


#: DMD; a target that is an average, and is passed; hidden states of a
#: frozen network; a backbone without units, and without slices.
OFFLOADED = [
    ("dmd", "wan", None),
    ("consistency", "wan", None),
    ("cda", "self-forcing", "ema-sink"),
    ("dmd", "gaussian", None),
]


@pytest.mark.parametrize("cell", OFFLOADED, ids=name_of)
def test_one_process_is_bitwise_the_same(cell, cell_alone, tmp_path):
    beside = trained(offloaded(run_of(*cell)), tmp_path)
    same(beside, cell_alone(cell))
    held_in_main_memory(beside)


# DMD fills memories of trained networks alone
@pytest.mark.parametrize("method", ["dmd", "consistency"])
def test_one_process_is_bitwise_the_same_in_bf16(method, tmp_path):
    """A memory holds what passes compute, also those of a network in main memory."""
    run = in_bf16(run_of(method, "self-forcing", "window"))
    beside = trained(offloaded(run), tmp_path / "offloaded")
    same(beside, trained(run, tmp_path / "plain"))
    held_in_main_memory(beside)


def held_in_main_memory(beside: Any) -> None:
    """All networks that are not trained, and no others."""
    roles = beside.networks.roles
    held = {name for name in roles if is_sharded(beside.networks[name])}
    assert held == {n for n, r in roles.items() if r.learning_rate is None} and len(held) >= 2


@pytest.mark.parametrize("what", [["averages"], BOTH])
def test_a_copy_of_an_average_in_main_memory(what, tmp_path):
    zoo = load_zoo(["tests.sizes.plugin", "tests.copies.plugin"])
    run = run_of("dmd", "wan", None)
    run["method"] = {"name": "phases", "average": True}
    run["training"] = {key: value for key, value in run["training"].items() if key != "optimizers"}
    one, other = (
        train(resolve(made, zoo, "test"), tmp_path / name, zoo, "cpu")
        for name, made in (("offloaded", offloaded(run, what)), ("plain", run))
    )
    same(one, other)


def test_a_run_goes_on_with_and_without(tmp_path):
    """What an average has kept in main memory is in the checkpoint."""
    run = run_of("dmd", "wan", None)
    run["training"] |= {"updates": 3, "checkpoint_every": 1}
    run["quality"] = {"every": 1, "prompts": 2, "steps": [1], "metrics": ["digits-class"]}
    whole = trained(run, tmp_path / "whole")
    for updates, execution in ((1, BOTH), (2, []), (3, BOTH)):
        part = run | {"training": run["training"] | {"updates": updates}}
        parts = trained(offloaded(part, execution), tmp_path / "parts")
    same(parts, whole)


@pytest.mark.slow
def test_two_processes_are_bitwise_the_same(train_in_two, sharded_cells, sharded_loras, tmp_path):
    """Sharded, also with the shards loaded by one process; and with a whole copy in each, where one
    alone measures."""
    cell = DEEPER  # blocks are gathered turn after turn
    copies = run_of(*cell) | {
        "quality": {"every": 2, "prompts": 2, "steps": [1], "metrics": ["digits-class"]},
        "execution": {"micro_batch": 2, "shard": 1},
    }
    loras = sharded(with_lora("wan"))
    beside = tmp_path / "beside"
    plain = {
        "sharded": sharded_cells / name_of(cell), "copies": tmp_path / "copies",
        "loras": sharded_loras / "sharded",
    }  # fmt: skip
    train_in_two(
        [
            (offloaded(sharded(run_of(*cell))), beside / "sharded"),
            *((copies, plain["copies"]), (offloaded(copies), beside / "copies")),
            (offloaded(loras, ["frozen"]), beside / "loras"),
        ]
    )
    for name, folder in plain.items():
        one, other = (place / "student.safetensors" for place in (folder, beside / name))
        assert one.read_bytes() == other.read_bytes()
    shutil.copytree(plain["sharded"], tmp_path / "sharded")
    alone = run_of(*cell) | {"execution": {}}
    same(*(trained(alone, folder) for folder in (tmp_path / "sharded", beside / "sharded")))


def test_the_plan_moves_them_to_main_memory():
    run = run_of("dmd", "wan", None)
    plans = [plan_run(resolve(offloaded(run, w), ZOO, "test"), ZOO) for w in ([], ["frozen"], BOTH)]
    plain, frozen, both = plans
    assert plain.host == 0 and "gathered units" not in plain.memory
    teacher, average = (plain.memory[f"weights {role}"] for role in ("teacher", "student_ema"))
    assert frozen.host == teacher and both.host == teacher + average
    assert set(plain.memory) - set(both.memory) == {"weights teacher", "weights student_ema"}
    assert 0 < both.memory["gathered units"] < teacher
    assert both.peak == pytest.approx(plain.peak - both.host + both.memory["gathered units"])


def leanest(run: dict[str, Any]) -> dict[str, Any]:
    """In bf16, so that networks in main memory are all that a fit has still to try."""
    small = {"batch_size": 1, "precision": "bf16"}
    execution = {"micro_batch": 1, "gradient_checkpointing": True}
    return run | {"training": run["training"] | small, "execution": execution}


def test_the_fit_tries_them():
    """On the first number of GPUs that does not hold the run without."""
    run = {"run": resolve(leanest(run_of("dmd", "wan", None)), ZOO, "test")}
    none = find_fit(run, ZOO, 1, 2.0)  # no memory at all: everything is tried
    tried = none.tried
    assert [setting.what for setting in tried][-2:] == [
        "frozen networks in main memory",
        "averages, too, in main memory",
    ]
    assert tried[-1].changes["offload"] == BOTH
    plan = tried[-1].plans["run"]  # half of the numbers, and a scale for 256 of them
    saved = none.eight_bit / sum(plan.states.values())
    assert 0.3 < saved < 0.5 and any("adamw8bit for student, fake_score" in h for h in none.help())
    room = (tried[-3].peak + tried[-2].peak) / 2
    found = find_fit(run, ZOO, 1, 2.0 + room).found
    assert found is not None and found.execution.offload == ["frozen"]


# where weights are has nothing to do with how many bits they have
@pytest.mark.parametrize(("backbone", "precision"), [("wan", "bf16"), ("self-forcing", "fp32")])
def test_a_teacher_beside_loras_is_bitwise_the_same(backbone, precision, tmp_path):
    """Of another size it has no weights in common with them; what they have they keep."""
    run = with_lora(backbone)
    run["training"]["precision"] = precision
    one = trained(offloaded(run, ["frozen"]), tmp_path / "offloaded")
    other = trained(run, tmp_path / "plain")
    same(one, other)
    assert [name for name in one.networks if is_sharded(one.networks[name])] == ["teacher"]
    for trainer in (one, other):
        ids = {role: set(map(id, trainer.networks[role].parameters())) for role in trainer.networks}
        assert ids["student"] & ids["student_ema"] and not ids["teacher"] & ids["fake_score"]
        assert backbone != "wan" or ids["student"] & ids["fake_score"]


@pytest.mark.parametrize("teacher", [{"size": "test-tiny-wide"}, None])
def test_what_may_be_offloaded_beside_loras(teacher):
    """All else is one line; the plan tries what may be."""
    run = with_lora("wan", teacher=teacher)
    refused = [["frozen"], ["averages"], BOTH] if teacher is None else [["averages"], BOTH]
    right = r"\[\]" if teacher is None else r"\[frozen\]"
    for what in refused:
        with pytest.raises(ZooError, match=rf"^here: execution\.offload: .* offload: {right}$"):
            check_training(resolve(offloaded(run, what), ZOO, "test"), ZOO, "here")
    tried = find_fit({"run": resolve(leanest(run), ZOO, "test")}, ZOO, 1, 2.0).tried
    offloads = [setting.changes["offload"] for setting in tried if "offload" in setting.changes]
    assert offloads == ([] if teacher is None else [["frozen"]])
    if teacher is not None:
        plain, moved = (plan_run(resolve(r, ZOO, "test"), ZOO) for r in
                        (run, offloaded(run, ["frozen"])))  # fmt: skip
        assert moved.host == plain.memory["weights shared by teacher"] > 0
        assert "weights shared by teacher" not in moved.memory
        common = [name for name in moved.memory if name.startswith("weights shared by")]
        assert len(common) == 1 and moved.peak < plain.peak
