"""Sharded over two real processes, every run is the run of one process, but for rounding."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from tests.test_matrix import CELLS, ZOO, bidirectional, content
from tests.two_processes import run_in_two_processes

pytestmark = pytest.mark.slow


def run_of(method: str, backbone: str, memory: str | None, micro: int = 2) -> dict[str, Any]:
    made = content(method, backbone, memory)
    made["training"] |= {"batch_size": 4, "log_every": 1, "ema": {"decay": 0.5, "start": 0}}
    return made | {"execution": {"micro_batch": micro}}


def sharded(run: dict[str, Any], **more: Any) -> dict[str, Any]:
    return run | {
        "execution": {"micro_batch": 2, "shard": 2, "gradient_checkpointing": True} | more
    }


Torchrun = Callable[[list[tuple[dict[str, Any], Path]]], None]


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory) -> Torchrun:
    """Trains runs, each in its folder, in one pair of processes."""

    def go(jobs: list[tuple[dict[str, Any], Path]]) -> None:
        path = tmp_path_factory.mktemp("jobs") / "jobs.json"
        path.write_text(json.dumps([(run, str(folder)) for run, folder in jobs]))
        run_in_two_processes(Path(__file__).parent / "sharded_runs.py", path)

    return go


#: Every method on every backbone, and every memory; how methods and memories go together is
#: independent of who holds the weights.
SHARDED_CELLS = [
    cell
    for cell in CELLS
    if cell.values[1] != "self-forcing" or cell.values[0] == "cda" or cell.values[2] == "window"
]


@pytest.fixture(scope="module")
def together(torchrun, tmp_path_factory) -> Path:
    """Every cell that can be trained, sharded over two processes."""
    folder, jobs = tmp_path_factory.mktemp("together"), []
    for cell in SHARDED_CELLS:
        run = run_of(*cell.values)
        if cell.values[1] == "toy-blocks" or refused(run):
            continue
        has_units = cell.values[1] in ("wan", "self-forcing")
        jobs.append((sharded(run, gradient_checkpointing=has_units), folder / str(cell.id)))
    torchrun(jobs)
    return folder


def refused(run: dict[str, Any]) -> bool:
    return run["method"]["name"] == "cda" and bidirectional(resolve(run, ZOO, "test"))


@pytest.mark.parametrize(("method", "backbone", "memory"), SHARDED_CELLS)
def test_two_processes_are_one(method, backbone, memory, together, tmp_path):
    run = run_of(method, backbone, memory)
    if refused(run):
        pytest.skip("cda needs a KV cache")
    if backbone == "toy-blocks":
        pytest.skip("its gradient is missing by construction where a memory is read")
    alone = train(resolve(run, ZOO, "test"), tmp_path, ZOO, "cpu")
    folder = together / f"{method}-{backbone}-{memory}"
    state = json.loads((folder / "checkpoints" / "step-000002" / "state.json").read_text())
    assert len(alone.history) == 2
    for one, other in zip(alone.history, state["history"], strict=True):
        for key in one.keys() - {"seconds"}:
            assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-6), key
    student = alone.networks["student_ema"].state_dict()
    found = safetensors.torch.load_file(folder / "student.safetensors")
    assert found.keys() == student.keys()
    difference = torch.cat([(found[key] - student[key]).abs().flatten() for key in student])
    assert difference.mean() < 1e-6  # two updates of 1e-3


def test_two_processes_are_one_from_an_image(torchrun, tmp_path):
    """The image's embedding and projections are sharded as the rest is."""
    run = run_of("dmd", "self-forcing", "window")
    run["backbone"]["size"] = "test-small-i2v"
    torchrun([(sharded(run), tmp_path / "two")])
    alone = train(resolve(run, ZOO, "test"), tmp_path / "one", ZOO, "cpu")
    student = alone.networks["student_ema"].state_dict()
    found = safetensors.torch.load_file(tmp_path / "two" / "student.safetensors")
    assert found.keys() == student.keys() and any("add_k_proj" in key for key in found)
    difference = torch.cat([(found[key] - student[key]).abs().flatten() for key in student])
    assert difference.mean() < 1e-6  # two updates of 1e-3


def test_two_processes_are_one_under_a_teacher_of_two_experts(torchrun, tmp_path, monkeypatch):
    """Times are drawn by row: the processes want different experts, and gather both together."""
    sides: list[bool] = []

    def spy(self, t, call, of_experts=WanExperts._of_experts):
        sides.append(bool(t[0] >= self.boundary))
        return of_experts(self, t, call)

    monkeypatch.setattr(WanExperts, "_of_experts", spy)
    run = run_of("dmd", "self-forcing", "window")
    run["backbone"]["teacher"] = {"size": "test-experts"}
    alone = train(resolve(run, ZOO, "test"), tmp_path / "one", ZOO, "cpu")
    # what the first process has in an update, and the second
    assert any(first != second for first, second in zip(sides[::2], sides[1::2], strict=True))
    torchrun([(sharded(run), tmp_path / "two")])
    student = alone.networks["student_ema"].state_dict()
    found = safetensors.torch.load_file(tmp_path / "two" / "student.safetensors")
    difference = torch.cat([(found[key] - student[key]).abs().flatten() for key in student])
    assert difference.mean() < 1e-6  # two updates of 1e-3


#: Of a student of two experts: changes of the training, and of the execution on two processes.
OF_EXPERTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sharded": ({}, {"shard": 2, "gradient_checkpointing": True}),
    # the average is measured by the first process alone
    "offloaded": ({}, {"offload": ["frozen", "averages"]}),
    "lora": ({"lora": {"student": {"rank": 4}, "fake_score": {"rank": 4}}}, {"shard": 2}),
}


def test_two_processes_are_one_with_a_student_of_two_experts(torchrun, tmp_path, monkeypatch):
    """Rows of a pass are on different sides in the two; in some updates one expert has none in
    either, and neither weights nor moments of it change."""
    runs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for name, (training, execution) in OF_EXPERTS.items():
        run = run_of("dmd", "wan", None) | {"seed": 2}
        run["backbone"] = {"name": "wan", "size": "test-experts"}
        run["method"] |= {"steps": 2, "timestep_shift": 1.0, "fake_score": {"updates": 1}}
        run["training"] |= training
        run["quality"] = {"every": 1, "prompts": 2, "steps": [2], "metrics": ["digits-motion"]}
        runs[name] = run, run | {"execution": {"micro_batch": 2} | execution}
    torchrun([(two, tmp_path / name) for name, (_, two) in runs.items()])
    sides: list[bool] = []

    def spy(self, t, call, of_experts=WanExperts._of_experts):
        sides.append(bool(t[0] >= self.boundary))
        return of_experts(self, t, call)

    monkeypatch.setattr(WanExperts, "_of_experts", spy)
    made: dict[str, Any] = {}
    for name, (run, _) in runs.items():
        if name != "offloaded":  # which is the same run
            made[name] = train(resolve(run, ZOO, "test"), tmp_path / f"{name}-alone", ZOO, "cpu")
        alone = made.get(name, made["sharded"])
        last = tmp_path / name / "checkpoints" / "step-000002"
        history = json.loads((last / "state.json").read_text())["history"]
        for one, other in zip(alone.history, history, strict=True):
            for key in one.keys() - {"seconds"}:
                assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-6), (name, key)
        student = alone.networks["student_ema"].state_dict()
        found = safetensors.torch.load_file(tmp_path / name / "student.safetensors")
        assert found.keys() == student.keys()
        difference = torch.cat([(found[key] - student[key]).abs().flatten() for key in student])
        assert difference.mean() < 1e-6, name  # two updates of 1e-3
    # what the first process has in an update, and the second
    assert any(first != second for first, second in zip(sides[::2], sides[1::2], strict=False))


def test_a_copy_is_of_shards(torchrun, tmp_path):
    """A teacher that becomes the student before the second update, which is then fitted to it."""
    zoo, runs = load_zoo(["tests.copies.plugin", "tests.sizes.plugin"]), {}
    for name, lora in (("whole", {}), ("lora", {"student": {"rank": 2}})):
        runs[name] = run_of("phases", "wan", None)
        runs[name]["training"] |= {"lora": lora, "log_every": 1}
    torchrun([(sharded(run), tmp_path / name) for name, run in runs.items()])
    for name, run in runs.items():
        alone = train(resolve(run, zoo, "test"), tmp_path / f"{name}-alone", zoo, "cpu")
        folder = tmp_path / name / "checkpoints" / "step-000002"
        state = json.loads((folder / "state.json").read_text())
        assert len(alone.history) == 2
        for one, other in zip(alone.history, state["history"], strict=True):
            for key in one.keys() - {"seconds"}:
                assert other[key] == pytest.approx(one[key], rel=1e-3, abs=1e-6), (name, key)


HALF = [("consistency", "wan"), ("dmd", "wan"), ("dmd", "self-forcing"), ("cda", "self-forcing")]


def in_bf16(run: dict[str, Any]) -> dict[str, Any]:
    return run | {"training": run["training"] | {"precision": "bf16"}}


@pytest.fixture(scope="module")
def together_in_bf16(torchrun, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bf16")
    torchrun([(in_bf16(sharded(run_of(*cell, None))), folder / "-".join(cell)) for cell in HALF])
    return folder


@pytest.mark.parametrize(("method", "backbone"), HALF)
def test_two_processes_are_one_in_bf16(method, backbone, together_in_bf16, tmp_path):
    """Also where a network's first pass is a frozen one, as the student's in DMD is."""
    alone = train(
        resolve(in_bf16(run_of(method, backbone, None)), ZOO, "test"), tmp_path, ZOO, "cpu"
    )
    folder = together_in_bf16 / f"{method}-{backbone}"
    state = json.loads((folder / "checkpoints" / "step-000002" / "state.json").read_text())
    assert len(alone.history) == 2
    for one, other in zip(alone.history, state["history"], strict=True):
        for key in one.keys() - {"seconds"}:
            assert other[key] == pytest.approx(one[key], rel=0.05, abs=1e-3), key


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


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_on_another_number_of_processes(optimizer, torchrun, tmp_path):
    """2, then 1, then 2 processes: moments and weights are those of one uninterrupted process."""
    run = run_of("dmd", "self-forcing", "window")
    run["training"] |= {"checkpoint_every": 1, "updates": 3}
    run["training"]["optimizers"] = {"student": {"name": optimizer}}

    def until(updates: int) -> dict[str, Any]:
        return run | {"training": run["training"] | {"updates": updates}}

    train(resolve(run, ZOO, "test"), tmp_path / "whole", ZOO, "cpu")
    torchrun([(sharded(until(1)), tmp_path / "parts")])
    train(resolve(until(2), ZOO, "test"), tmp_path / "parts", ZOO, "cpu")
    torchrun([(sharded(run), tmp_path / "parts")])
    whole, parts = (moments(run, tmp_path / name) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and len(whole) > 100
    for name, value in whole.items():
        scale = value.abs().max().clamp_min(1e-12)
        tolerance = 0.05 if "momentum" in name else 2e-3  # Muon iterates in bfloat16
        assert ((value - parts[name]) / scale).abs().max() < tolerance, name
    steps = {float(value) for name, value in parts.items() if name.endswith(" step")}
    assert steps == {3.0, 6.0}  # the fake score is updated twice a step


def test_a_flipped_bit_is_found(torchrun, tmp_path):
    run = run_of("teacher-forcing", "wan", None)
    run["training"] |= {"checkpoint_every": 1}
    torchrun([(sharded(run), tmp_path / "run")])
    (path, *_) = sorted((tmp_path / "run" / "checkpoints" / "step-000002").glob("shard-*"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    kept, lines = newest_whole(tmp_path / "run" / "checkpoints")
    assert kept is not None and kept.step == 1
    assert len(lines) == 1 and path.name in lines[0]


def test_a_process_holds_its_share(torchrun, tmp_path):
    """Each file of a checkpoint has about half of the numbers, together they have all of them."""
    run = run_of("dmd", "wan", None)
    torchrun([(sharded(run), tmp_path / "run")])
    alone = train(resolve(run, ZOO, "test"), tmp_path / "alone", ZOO, "cpu")
    folder = tmp_path / "run" / "checkpoints" / "step-000002"
    sizes = [path.stat().st_size for path in sorted(folder.glob("shard-*"))]
    assert len(sizes) == 2 and max(sizes) < 1.2 * min(sizes)
    networks = alone.networks
    numbers = [p.numel() for role in networks.saved_roles() for p in networks[role].parameters()]
    for optimizers in networks.optimizers.values():
        for optimizer in optimizers:
            numbers += [s.numel() for states in optimizer.state.values() for s in states.values()]
    assert sum(sizes) == pytest.approx(4 * sum(numbers), rel=0.1)  # and names, in the headers


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
