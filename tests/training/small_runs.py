"""Runs of small networks, for tests of how they are carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.test_matrix import ZOO, content, memories

Cell = tuple[str, str, str | None]


def tiny_run(method: str, backbone: str, memory: str | None) -> dict[str, Any]:
    """Two updates of two videos by networks of one block, which is a unit beside the rest; a fake
    score is updated once for each."""
    made = content(method, backbone, memory)
    if "size" in made["backbone"]:
        made["backbone"]["size"] = "test-tiny"
    if "fake_score" in made["method"]:
        made["method"]["fake_score"] = {"updates": 1}
    made["training"] |= {"log_every": 1, "ema": {"decay": 0.5, "start": 0}}
    return made


def run_of(method: str, backbone: str, memory: str | None) -> dict[str, Any]:
    """The same of four videos, two in a pass."""
    made = tiny_run(method, backbone, memory)
    made["training"]["batch_size"] = 4
    return made | {"execution": {"micro_batch": 2}}


def sharded(run: dict[str, Any], **more: Any) -> dict[str, Any]:
    return run | {
        "execution": {"micro_batch": 2, "shard": 2, "gradient_checkpointing": True} | more
    }


def digits_run(teacher: Path) -> dict[str, Any]:
    """That of the fixture `train`, without changes."""
    training = {"updates": 4, "batch_size": 2, "checkpoint_every": 2, "trackers": []}
    return {
        "method": {"name": "teacher-forcing", "learning_rate": 1.0e-3},
        "backbone": {"name": "wan", "size": "digits", "options": {"weights": str(teacher)}},
        "dataset": "digits",
        "training": training | {"log_every": 1, "ema": {"decay": 0.9, "start": 1}},
    }


def in_bf16(run: dict[str, Any]) -> dict[str, Any]:
    return run | {"training": run["training"] | {"precision": "bf16"}}


def _cells() -> list[Cell]:
    """Every method on the causal network, whose passes it makes in its own way; every memory, and
    every kind of network. How methods and memories go together has nothing to do with who holds the
    weights, and a method's plain passes are those of another method."""
    kept = memories("self-forcing")
    return [
        *((m.name, "self-forcing", kept[n % len(kept)]) for n, m in enumerate(ZOO.methods)),
        ("dmd", "wan", None),
        ("consistency", "wan", None),  # whose target is an average that is passed
        ("dmd", "gaussian", None),  # without units
        ("consistency", "gaussian", None),
    ]


CELLS = _cells()


def name_of(cell: Cell) -> str:
    return "-".join(map(str, cell))
