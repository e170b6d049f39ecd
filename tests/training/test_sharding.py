"""Sharded over two real processes, every run is the run of one process, but for rounding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from salt_zoo.config.execution import ExecutionConfig
from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.checkpoints.checkpoint import load_checkpoint, newest_whole
from salt_zoo.training.launch import train
from salt_zoo.training.state.layout import make_layout
from salt_zoo_wan.experts.experts import WanExperts
from tests.test_matrix import ZOO, memories
from tests.training.small_runs import CELLS, Cell, in_bf16, name_of, run_of, sharded

pytestmark = pytest.mark.slow


def same_history(one: Any, folder: Path, rel: float = 1e-3, least: float = 1e-6) -> None:
    """The two updates' logs of a trainer and those of a run of two processes."""
    last = folder / "checkpoints" / "step-000002"
    history = json.loads((last / "state.json").read_text())["history"]
    assert len(one.history) == 2
    for alone, other in zip(one.history, history, strict=True):
        for key in alone.keys() - {"seconds"}:
            assert other[key] == pytest.approx(alone[key], rel=rel, abs=least), (folder.name, key)


def same_student(one: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Of a trainer and of a run of two processes, whose weights it returns."""
    student = one.networks["student_ema"].state_dict()
    found = safetensors.torch.load_file(folder / "student.safetensors")
    assert found.keys() == student.keys()
    difference = torch.cat([(found[key] - student[key]).abs().flatten() for key in student])
    assert difference.mean() < 1e-6, folder.name  # two updates of 1e-3
    return found


def train_alone(run: dict[str, Any], folder: Path, zoo: Any = ZOO) -> Any:
    return train(resolve(run, zoo, "test"), folder, zoo, "cpu")


@pytest.mark.parametrize("cell", CELLS, ids=name_of)
def test_two_processes_are_one(cell, cell_alone, sharded_cells):
    same_history(cell_alone(cell), sharded_cells / name_of(cell))
    same_student(cell_alone(cell), sharded_cells / name_of(cell))


def test_every_method_and_every_memory_is_sharded():
    causal = [cell for cell in CELLS if cell[1] == "self-forcing"]
    assert {method for method, *_ in causal} == {method.name for method in ZOO.methods}
    assert {memory for *_, memory in causal} == {*memories("self-forcing")}


def test_a_process_holds_its_share(cell_alone, sharded_cells):
    """Each file of a checkpoint has about half of the numbers, together they have all of them."""
    cell: Cell = ("dmd", "wan", None)
    folder = sharded_cells / name_of(cell) / "checkpoints" / "step-000002"
    sizes = [path.stat().st_size for path in sorted(folder.glob("shard-*"))]
    assert len(sizes) == 2 and max(sizes) < 1.2 * min(sizes)
    networks = cell_alone(cell).networks
    numbers = [p.numel() for role in networks.saved_roles() for p in networks[role].parameters()]
    for optimizers in networks.optimizers.values():
        for optimizer in optimizers:
            numbers += [s.numel() for states in optimizer.state.values() for s in states.values()]
    assert sum(sizes) == pytest.approx(4 * sum(numbers), rel=0.1)  # and names, in the headers


def test_two_processes_are_one_from_an_image(train_in_two, tmp_path):
    """The image's embedding and projections are sharded as the rest is."""
    run = run_of("teacher-forcing", "self-forcing", "window")
    run["backbone"]["size"] = "test-tiny-i2v"
    train_in_two([(sharded(run), tmp_path / "two")])
    found = same_student(train_alone(run, tmp_path / "one"), tmp_path / "two")
    assert any("add_k_proj" in key for key in found)


def test_two_processes_are_one_under_a_teacher_of_two_experts(train_in_two, tmp_path, monkeypatch):
    """Times are drawn by row: the processes want different experts, and gather both together."""
    sides: list[bool] = []

    def spy(self, t, call, of_experts=WanExperts._of_experts):
        sides.append(bool(t[0] >= self.boundary))
        return of_experts(self, t, call)

    monkeypatch.setattr(WanExperts, "_of_experts", spy)
    run = run_of("dmd", "wan", None)
    run["backbone"]["teacher"] = {"size": "test-tiny-experts"}
    alone = train_alone(run, tmp_path / "one")
    # what the first process has in an update, and the second
    assert any(first != second for first, second in zip(sides[::2], sides[1::2], strict=True))
    train_in_two([(sharded(run), tmp_path / "two")])
    same_student(alone, tmp_path / "two")


#: Of a student of two experts: the method, a seed that draws such times, changes of the training,
#: and of the execution on two processes.
OF_EXPERTS: dict[str, tuple[str, int, dict[str, Any], dict[str, Any]]] = {
    "sharded": ("dmd", 9, {}, {"shard": 2, "gradient_checkpointing": True}),
    # the average is measured by the first process alone
    "offloaded": ("dmd", 9, {}, {"offload": ["frozen", "averages"]}),
    "lora": ("consistency", 6, {"lora": {"student": {"rank": 4}}}, {"shard": 2}),
}


def test_two_processes_are_one_with_a_student_of_two_experts(train_in_two, tmp_path, monkeypatch):
    """In the same pass they want different experts; in some updates of DMD one expert has rows in
    neither, and neither weights nor moments of it change."""
    runs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for name, (method, seed, training, execution) in OF_EXPERTS.items():
        run = run_of(method, "wan", None) | {"seed": seed}
        run["backbone"] = {"name": "wan", "size": "test-tiny-experts"}
        if method == "dmd":
            run["method"]["timestep_shift"] = 1.0
        run["training"] |= training
        run["quality"] = {"every": 2, "prompts": 2, "steps": [2], "metrics": ["digits-motion"]}
        runs[name] = run, run | {"execution": {"micro_batch": 2} | execution}
    train_in_two([(two, tmp_path / name) for name, (_, two) in runs.items()])
    wanted: list[set[bool]] = []

    def spy(self, t, call, of_experts=WanExperts._of_experts):
        if torch.is_grad_enabled():  # sampling goes through all times
            wanted.append(set((t >= self.boundary).tolist()))
        return of_experts(self, t, call)

    monkeypatch.setattr(WanExperts, "_of_experts", spy)
    made: dict[str, Any] = {}
    for name, (run, _) in runs.items():
        if name != "offloaded":  # which is the same run
            wanted.clear()
            made[name] = train_alone(run, tmp_path / f"{name}-alone")
            # by the first process's rows of a trained pass, and by the second's
            pairs = [*zip(wanted[::2], wanted[1::2], strict=True)]
            assert any(not first & second for first, second in pairs), name
            assert name == "lora" or any(len(first | second) == 1 for first, second in pairs)
        alone = made.get(name, made["sharded"])
        same_history(alone, tmp_path / name)
        same_student(alone, tmp_path / name)


def test_a_copy_is_of_shards(train_in_two, tmp_path):
    """A teacher that becomes the student before the second update, which is then fitted to it."""
    zoo, runs = load_zoo(["tests.copies.plugin", "tests.sizes.plugin"]), {}
    for name, lora in (("whole", {}), ("lora", {"student": {"rank": 2}})):
        runs[name] = run_of("phases", "wan", None)
        runs[name]["training"] |= {"lora": lora, "log_every": 1}
    train_in_two([(sharded(run), tmp_path / name) for name, run in runs.items()])
    for name, run in runs.items():
        same_history(train_alone(run, tmp_path / f"{name}-alone", zoo), tmp_path / name)


HALF: list[Cell] = [
    ("dmd", "wan", None),
    ("dmd", "self-forcing", "full"),  # a memory holds what passes compute
    ("teacher-forcing", "self-forcing", "window"),
]


@pytest.fixture(scope="module")
def together_in_bf16(train_in_two, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bf16")
    train_in_two([(in_bf16(sharded(run_of(*cell))), folder / name_of(cell)) for cell in HALF])
    return folder


@pytest.mark.parametrize("cell", HALF, ids=name_of)
def test_two_processes_are_one_in_bf16(cell, together_in_bf16, tmp_path):
    """Also where a network's first pass is a frozen one, as the student's in DMD is."""
    alone = train_alone(in_bf16(run_of(*cell)), tmp_path)
    same_history(alone, together_in_bf16 / name_of(cell), rel=0.05, least=1e-3)


def moments(run: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    """What a process alone loads from the newest checkpoint: weights, and moments by weight."""
    kept, lines = newest_whole(folder / "checkpoints")
    assert kept is not None and not lines
    made = train(resolve(run | {"training": run["training"] | {"updates": kept.step}}, ZOO, "test"),
                 folder, ZOO, "cpu")  # fmt: skip
    load_checkpoint(kept, made.networks, "cpu")
    found = {}
    for role, optimizers in made.networks.optimizers.items():
        names = {p: name for name, p in made.networks[role].named_parameters()}
        for optimizer in optimizers:
            for weight, states in optimizer.state.items():
                for key, value in states.items():
                    found[f"{role} {names[weight]} {key}"] = value.clone()
    return found


def several_parts() -> dict[str, Any]:
    """The student's matrices are Muon's; its other weights, and the fake score's, are AdamW's."""
    run = run_of("dmd", "wan", None)
    run["method"]["fake_score"]["updates"] = 2
    run["training"] |= {"checkpoint_every": 1, "updates": 3}
    run["training"]["optimizers"] = {"student": {"name": "muon"}}
    return run


@pytest.fixture(scope="module")
def parts(train_in_two, tmp_path_factory) -> Path:
    """A run of 2, then 1, then 2 processes."""
    run, folder = several_parts(), tmp_path_factory.mktemp("parts")

    def until(updates: int) -> dict[str, Any]:
        return run | {"training": run["training"] | {"updates": updates}}

    train_in_two([(sharded(until(1)), folder)])
    train_alone(until(2), folder)
    train_in_two([(sharded(run), folder)])
    return folder


def test_resuming_on_another_number_of_processes(parts, tmp_path):
    """Moments and weights are those of one uninterrupted process."""
    run = several_parts()
    train_alone(run, tmp_path / "whole")
    shutil.copytree(parts, tmp_path / "parts")
    whole, found = (moments(run, tmp_path / name) for name in ("whole", "parts"))
    assert whole.keys() == found.keys() and len(whole) > 100
    for name, value in whole.items():
        scale = value.abs().max().clamp_min(1e-12)
        tolerance = 0.05 if "momentum" in name else 2e-3  # Muon iterates in bfloat16
        assert ((value - found[name]) / scale).abs().max() < tolerance, name
    steps = {float(value) for name, value in found.items() if name.endswith(" step")}
    assert steps == {3.0, 6.0}  # the fake score is updated twice a step


def test_a_flipped_bit_is_found(parts, tmp_path):
    shutil.copytree(parts / "checkpoints", tmp_path / "checkpoints")
    (path, *_) = sorted((tmp_path / "checkpoints" / "step-000003").glob("shard-*"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    kept, lines = newest_whole(tmp_path / "checkpoints")
    assert kept is not None and kept.step == 2
    assert len(lines) == 1 and path.name in lines[0]


@pytest.mark.parametrize(
    ("execution", "batch", "world", "said"),
    [
        ({"shard": 3}, 4, 4, "execution.shard: 4 processes cannot be split into groups of 3"),
        ({"micro_batch": 3}, 4, 1, "execution.micro_batch: training.batch_size 4 cannot be split"),
        ({}, 3, 2, "training.batch_size: 3 cannot be split over 2 processes"),
        ({"micro_batch": 1}, 3, 2, "training.batch_size: 3 cannot be split over 2 processes in"),
        ({"sequence": 2}, 4, 3, "execution.sequence: 3 processes cannot be split into groups of 2"),
        (
            {"sequence": 2},
            3,
            4,
            "batch_size: 3 cannot be split over 2 groups of 2 processes; write",
        ),
        ({"micro_batch": 1}, 6, 16, "write a multiple of 16, or execution.sequence=8$"),
        (
            {"sequence": 4, "micro_batch": 3},
            4,
            4,
            "batch_size 4 cannot be split over 1 group of 4 processes in passes of 3; write a",
        ),
    ],
)
def test_a_layout_that_does_not_divide(execution, batch, world, said):
    with pytest.raises(ZooError, match=said):
        make_layout(ExecutionConfig(**execution), batch, world)


def test_auto_shards_over_the_gpus_of_a_node():
    auto = ExecutionConfig()
    assert make_layout(auto, 64, 16, device_type="cuda", node=8).shard == 8
    assert make_layout(auto, 64, 16, device_type="cpu", node=8).shard == 1
    assert make_layout(auto, 64, 1, device_type="cuda", node=1).shard == 1
