"""Runs of small networks, for tests of how they are carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.test_matrix import content

Cell = tuple[str, str, str | None]
#: A rollout of two blocks, each a unit whose weights are gathered while the other's are in use.
DEEPER: Cell = ("dmd", "self-forcing", "window")
#: What is of two blocks: also a target that is an average, and passed.
OF_TWO_BLOCKS = (DEEPER, ("consistency", "self-forcing", "block-relative"))


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
    if (method, backbone, memory) in OF_TWO_BLOCKS:
        made["backbone"]["size"] = "test-small"
    made["training"]["batch_size"] = 4
    return made | {"execution": {"micro_batch": 2}}


def sharded(run: dict[str, Any], **more: Any) -> dict[str, Any]:
    return run | {
        "execution": {"micro_batch": 2, "shard": 2, "gradient_checkpointing": True} | more
    }


def with_lora(backbone: str, **parts: Any) -> dict[str, Any]:
    """Student and fake score are LoRAs; the teacher is of another size, or with `teacher=None`
    their base."""
    run = run_of("dmd", backbone, "window" if backbone == "self-forcing" else None)
    run["training"]["lora"] = {role: {"rank": 2} for role in ("student", "fake_score")}
    run["backbone"] |= {"size": "test-tiny", "teacher": {"size": "test-tiny-wide"}} | parts
    return run


def digits_run(teacher: Path) -> dict[str, Any]:
    """That of the fixture `train`, without changes."""
    training = {"updates": 4, "batch_size": 2, "checkpoint_every": 2, "trackers": []}
    return {
        "method": {"name": "teacher-forcing", "learning_rate": 1.0e-3},
        "backbone": {"name": "wan", "size": "test-tiny", "options": {"weights": str(teacher)}},
        "dataset": "digits",
        "training": training | {"log_every": 1, "ema": {"decay": 0.9, "start": 1}},
    }


def in_bf16(run: dict[str, Any]) -> dict[str, Any]:
    return run | {"training": run["training"] | {"precision": "bf16"}}


#: Every method on the causal network, whose passes it makes in its own way; every memory, those
#: without a share in masked passes where rollouts fill them; and every kind of network. How methods
#: and memories go together has nothing to do with who holds the weights, and a method's plain
#: passes are those of another method.
CELLS: list[Cell] = [
    ("cda", "self-forcing", "ema-sink"),
    ("sc-dmd", "self-forcing", "window-int8"),
    *OF_TWO_BLOCKS,
    ("diffusion-forcing", "self-forcing", "full"),
    ("ode-regression", "self-forcing", "ema-sink"),
    ("teacher-forcing", "self-forcing", "window"),
    ("dmd", "wan", None),
    ("dmd", "gaussian", None),  # without units
    ("consistency", "gaussian", None),
]


def name_of(cell: Cell) -> str:
    return "-".join(map(str, cell))
