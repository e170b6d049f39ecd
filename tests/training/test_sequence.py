"""Two processes that share every video are one process, but for rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from salt_zoo.config.run import resolve
from salt_zoo.planning.memory import GIB, activation_gib
from salt_zoo.training.launch import train
from tests.test_matrix import ZOO
from tests.training.sequence_passes import COMPARED, KINDS, MASKED, backbone_of_activations
from tests.training.small_runs import tiny_run
from tests.training.test_sharding import moments
from tests.two_processes import run_in_two_processes

pytestmark = pytest.mark.slow

#: Method, backbone, memory, and what else the shared run does. Networks alone know that they are
#: shared: every kind of pass is there once, and so is what holds their weights.
Cell = tuple[str, str, str | None, dict[str, Any]]
SHARDED = {"shard": 2, "gradient_checkpointing": True}
CELLS: list[Cell] = [
    ("consistency", "wan", None, {}),
    ("consistency", "self-forcing", "full", {}),
    ("teacher-forcing", "self-forcing", "window", {}),  # one masked pass
    ("sc-dmd", "self-forcing", "ema-sink", {"gradient_checkpointing": True}),
    ("cda", "self-forcing", "window", {}),
]
HALF: list[Cell] = [
    ("dmd", "wan", None, {}),
    ("teacher-forcing", "self-forcing", "full", SHARDED),
]
LORA: Cell = ("consistency", "self-forcing", "full", SHARDED)


def run_of(cell: Cell, **training: Any) -> dict[str, Any]:
    run = tiny_run(*cell[:3])
    run["training"] |= training
    return run


def on(name: str) -> dict[str, Any]:
    cell, changes = BACKBONES[name]
    run = run_of(cell)
    return run | {"backbone": run["backbone"] | changes}


def shared(run: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return run | {"execution": {"sequence": 2} | more}


def name_of(cell: Cell) -> str:
    return "-".join(map(str, cell[:3]))


#: Beside them: changes of the backbone.
BACKBONES: dict[str, tuple[Cell, dict[str, Any]]] = {
    "an image": (("consistency", "self-forcing", "window", {}), {"size": "test-tiny-i2v"}),
    "a first frame": (("dmd", "wan", None, {}), {"size": "test-small-ti2v"}),
    "two experts": (
        ("dmd", "wan", None, {}),
        {"teacher": {"size": "test-tiny-experts"}},
    ),
    # trained both, and seen in two turns of one pass where rows are on both sides
    "a student of two experts": (
        ("consistency", "wan", None, {"gradient_checkpointing": True}),
        {"size": "test-tiny-experts"},
    ),
    "sharded experts": (
        ("teacher-forcing", "wan", None, SHARDED | {"attention": "_native_math"}),
        {"size": "test-tiny-experts"},
    ),
}
IN_BF16 = {"precision": "bf16"}
ADAPTED = {"lora": {"student": {"rank": 4}}}
#: An interrupted run, before it shares its videos.
RESUMED: Cell = ("dmd", "self-forcing", "full", {})


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """The folder with all that two processes have made."""
    folder = tmp_path_factory.mktemp("together")
    jobs = [(shared(run_of(cell), cell[3]), name_of(cell)) for cell in CELLS]
    jobs += [(shared(run_of(cell, **IN_BF16), cell[3]), f"bf16-{name_of(cell)}") for cell in HALF]
    jobs += [(shared(on(name), BACKBONES[name][0][3]), name) for name in BACKBONES]
    jobs += [(shared(run_of(LORA, **ADAPTED), LORA[3]), "lora")]
    jobs += [(shared(run_of(RESUMED), {}), "resumed")]
    first = run_of(RESUMED, updates=1)
    train(resolve(first, ZOO, "test"), folder / "resumed", ZOO, "cpu")
    (folder / "jobs").write_text(json.dumps([(run, str(folder / name)) for run, name in jobs]))
    said = run_in_two_processes(Path(__file__).parent / "sequence_passes.py", folder / "jobs")
    assert not said  # no run was refused
    return folder


@pytest.fixture(scope="module")
def numbers(together) -> list[dict[str, dict[str, float]]]:
    return [json.loads((together / f"jobs-{rank}.json").read_text()) for rank in (0, 1)]


PASSES = len(COMPARED) * sum(map(len, KINDS))


@pytest.mark.parametrize(
    ("what", "tolerance", "count"),
    [
        ("exchange", 1e-14, 9),
        ("wan", 1e-6, PASSES),
        ("experts", 1e-6, PASSES),
        ("causal", 1e-6, PASSES + len(COMPARED) * len(MASKED) * len(KINDS)),
        ("block by block", 1e-6, PASSES),
        ("memory full", 1e-6, 3),
        ("memory window", 1e-6, 3),
        ("memory block-relative", 1e-6, 3),
        ("memory ema-sink", 1e-6, 3),
    ],
)
def test_a_shared_pass_is_a_pass(what, tolerance, count, numbers):
    """Values, gradients and a memory's bytes."""
    for found in numbers:
        assert len(found[what]) == count
        for name, difference in found[what].items():
            assert abs(difference) < tolerance, name


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_activations_of_a_shared_pass_are_planned(checkpointing, numbers):
    backbone = backbone_of_activations()
    planned = activation_gib(backbone, "student", 8, False, checkpointing, False, sequence=2)
    for found in numbers:
        assert found["activations"][f"checkpointing {checkpointing}"] / GIB == pytest.approx(
            planned, rel=0.1
        )


def compare(run: dict[str, Any], folder: Path, own: Path, logs: float, weights: float) -> None:
    """A run against the same run in this process: also what it has counted."""
    alone = same_run(run, folder, own, logs, weights)
    state = json.loads((folder / "checkpoints" / "step-000002" / "state.json").read_text())
    assert state["passes"] == json.loads(json.dumps(alone.counter.state()))


def same_run(run: dict[str, Any], folder: Path, own: Path, logs: float, weights: float) -> Any:
    """Logs and the student of a run against those of the trainer that it returns."""
    alone = train(resolve(run, ZOO, "test"), own, ZOO, "cpu")
    state = json.loads((folder / "checkpoints" / "step-000002" / "state.json").read_text())
    assert len(state["history"]) == len(alone.history) == 2
    for one, other in zip(alone.history, state["history"], strict=True):
        for key in one.keys() - {"seconds"}:
            assert other[key] == pytest.approx(one[key], rel=logs, abs=1e-6), key
    student = alone.networks["student_ema"].state_dict()
    found = safetensors.torch.load_file(folder / "student.safetensors")
    assert found.keys() == student.keys()
    difference = torch.cat([(found[key] - student[key]).abs().flatten() for key in student])
    assert difference.mean() < weights  # two updates of 1e-3
    return alone


@pytest.mark.parametrize("cell", CELLS, ids=name_of)
def test_two_processes_are_one(cell, together, tmp_path):
    compare(run_of(cell), together / name_of(cell), tmp_path, 1e-5, 1e-8)


@pytest.mark.parametrize("cell", HALF, ids=name_of)
def test_two_processes_are_one_in_bf16(cell, together, tmp_path):
    folder = together / f"bf16-{name_of(cell)}"
    compare(run_of(cell, **IN_BF16), folder, tmp_path, 0.02, 1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_two_processes_are_one_on(name, together, tmp_path):
    """Wider: Adam makes much of gradients that are about 0, as those of grey images are."""
    compare(on(name), together / name, tmp_path, 1e-3, 1e-6)


def test_two_processes_are_one_with_lora(together, tmp_path):
    compare(run_of(LORA, **ADAPTED), together / "lora", tmp_path, 1e-5, 1e-8)


def test_a_run_resumes_as_shared(together, tmp_path):
    """Weights, moments and counted passes are those of one uninterrupted process."""
    compare(run_of(RESUMED), together / "resumed", tmp_path / "whole", 1e-5, 1e-8)
    same_moments(run_of(RESUMED), tmp_path / "whole", together / "resumed")


def same_moments(run: dict[str, Any], whole: Path, parts: Path) -> None:
    """Of the folders of a run that one process has made, and several."""
    one, other = (moments(run, folder) for folder in (whole, parts))
    assert one.keys() == other.keys() and len(one) > 50
    for name, value in one.items():
        scale = value.abs().max().clamp_min(1e-12)
        assert ((value - other[name]) / scale).abs().max() < 1e-4, name


def test_four_processes_share_two_videos_and_half_of_the_weights(tmp_path):
    """Data, sequence and shard at once: two groups of two, and weights in halves, all of which a
    rollout trains."""
    cell: Cell = ("dmd", "self-forcing", "window", SHARDED | {"micro_batch": 1})
    run = run_of(cell)
    file = tmp_path / "jobs"
    file.write_text(json.dumps([(shared(run, cell[3]), str(tmp_path / "together"))]))
    script = Path(__file__).parent / "sharded_runs.py"
    assert not run_in_two_processes(script, file, processes=4)
    same_run(run, tmp_path / "together", tmp_path / "alone", 1e-5, 1e-8)
    same_moments(run, tmp_path / "alone", tmp_path / "together")
