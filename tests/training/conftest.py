"""Runs that two processes train, some of them for the tests of several files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salt_zoo.config.run import resolve
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import merge
from salt_zoo.training.launch import train
from tests.test_matrix import ZOO
from tests.training.small_runs import (
    CELLS,
    Cell,
    digits_run,
    name_of,
    run_of,
    sharded,
    with_lora,
)
from tests.two_processes import run_in_two_processes

TrainAlone = Callable[[Cell], Any]
TrainInTwo = Callable[[list[tuple[dict[str, Any], Path]]], None]


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    """All installed plugins, and sizes for tests."""
    return ZOO


@pytest.fixture
def run_content(run_content: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The run of `tests/conftest.py`, of one block: what a loop does has nothing to do with how
    deep its networks are."""

    def make(**changes: Any) -> dict[str, Any]:
        return run_content(**merge({"backbone": {"size": "test-tiny"}}, changes))

    return make


@pytest.fixture(scope="session")
def train_in_two(tmp_path_factory: pytest.TempPathFactory) -> TrainInTwo:
    """Trains runs, each in its folder, in the pair of processes."""

    def go(jobs: list[tuple[dict[str, Any], Path]]) -> None:
        path = tmp_path_factory.mktemp("jobs") / "jobs.json"
        path.write_text(json.dumps([(run, str(folder)) for run, folder in jobs]))
        said = run_in_two_processes(Path(__file__).parent / "sharded_runs.py", path)
        assert not said  # no run was refused

    return go


@pytest.fixture(scope="session")
def sharded_cells(train_in_two: TrainInTwo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of every cell, sharded over two processes; not to be changed."""
    folder, jobs = tmp_path_factory.mktemp("sharded"), []
    for cell in CELLS:
        run = sharded(run_of(*cell), gradient_checkpointing=cell[1] != "gaussian")
        jobs.append((run, folder / name_of(cell)))
    train_in_two(jobs)
    return folder


@pytest.fixture(scope="session")
def sharded_loras(train_in_two: TrainInTwo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `with_lora` on a plain Wan: `sharded` over two processes, and `resumed` on them after
    an update in one; and, of three roles on `one-base`, sharded; not to be changed."""
    folder, run = tmp_path_factory.mktemp("loras"), with_lora("wan")
    first = run | {"training": run["training"] | {"updates": 1}}
    train(resolve(first, ZOO, "test"), folder / "resumed", ZOO, "cpu")
    jobs = [(sharded(run), folder / name) for name in ("sharded", "resumed")]
    train_in_two([*jobs, (sharded(with_lora("wan", teacher=None)), folder / "one-base")])
    return folder


@pytest.fixture(scope="session")
def cell_alone(tmp_path_factory: pytest.TempPathFactory) -> TrainAlone:
    """The trainer of a cell that this process has trained; not to be changed."""
    made: dict[Cell, Any] = {}

    def go(cell: Cell) -> Any:
        if cell not in made:
            run = resolve(run_of(*cell), ZOO, "test")
            made[cell] = train(run, tmp_path_factory.mktemp("alone"), ZOO, "cpu")
        return made[cell]

    return go


@pytest.fixture(scope="session")
def digits_alone(teacher: Path, zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trainer of the run that the fixture `train` makes without changes; not to be changed."""
    run = resolve(digits_run(teacher), zoo, "test")
    return train(run, tmp_path_factory.mktemp("digits") / "whole", zoo, "cpu")
