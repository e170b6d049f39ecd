"""Every registered method on every registered backbone (and memory), through the real trainer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.conformance import check_memory, check_method
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train
from tests.conftest import PROMPT
from tests.one_update import names, recorded_gradients

ZOO = load_zoo(["tests.gaussian.plugin", "tests.blocks.plugin", "tests.sizes.plugin"])

#: Backbones that have a data set of their own; the others generate digits.
DATASETS = {"gaussian": "gaussian", "toy-blocks": "toy-blocks"}
#: Options that make a method quicker, or do all that it does from the first update on.
OPTIONS = {
    "ode-regression": {"teacher_steps": 8},
    "dmd": {"steps": 2, "fake_score": {"updates": 2}},
    # the first two updates end at steps 1 and 0 of 3: all terms are due, see below
    "sc-dmd": {
        "steps": 3,
        "fake_score": {"updates": 1},
        "objectives": {"self-consistency": {"steps": 3}},
    },
    "cda": {
        "steps": 3,
        "fake_score": {"updates": 1},
        "objectives": {
            "self-consistency": {"steps": 3},
            "cache-alignment": {"start": 0, "reference": {3: 6}},
        },
    },
}


def memories(backbone: str) -> list[str | None]:
    """The memories that a backbone can be given; None is its own, or none at all."""
    config = getattr(ZOO.backbones[backbone].load(), "Config", None)
    takes_one = config is not None and "memory" in config.model_fields
    return [memory.name for memory in ZOO.memories] if takes_one else [None]


#: Memories at sizes at which videos of 9 frames in blocks of 3 already leave them.
SMALL = {
    "window": {"frames": 6, "sink": 0},
    "window-int8": {"frames": 6, "sink": 0},
    "block-relative": {"frames": 6, "sink": 1},
    "ema-sink": {"frames": 6, "sink": 3},
}

METHODS = [method.name for method in ZOO.methods]
#: Backbones with their memories.
COLUMNS = [
    (backbone.name, memory) for backbone in ZOO.backbones for memory in memories(backbone.name)
]


def refused(method: str, column: tuple[str, str | None]) -> bool:
    """A backbone without a KV cache has none to align."""
    return method == "cda" and column[0] in ("wan", "gaussian")


#: Cells of which every network has two blocks, and which are trained in bf16, too: each method on
#: two backbones or memories, and each of those with a method or two.
DEEPER = [
    (method, *column)
    for row, method in enumerate(METHODS)
    for place, column in enumerate(COLUMNS)
    if (row + place) % 4 == 0 and not refused(method, column)
]


#: All methods on all backbones with all memories.
CELLS = [
    pytest.param(method, *column, id="-".join(map(str, (method, *column))))
    for method in METHODS
    for column in COLUMNS
]


def content(method: str, backbone: str, memory: str | None) -> dict[str, Any]:
    part: dict[str, Any] = {"name": backbone}
    if backbone not in DATASETS:
        part["size"] = "test-small"
    if memory is not None:
        part["memory"] = {"name": memory, **SMALL.get(memory, {})}
    return {
        "method": {"name": method, "learning_rate": 1e-3, **OPTIONS.get(method, {})},
        "backbone": part,
        "dataset": DATASETS.get(backbone, "digits"),
        "training": {"updates": 2, "batch_size": 2, "checkpoint_every": 2, "trackers": []},
    }


@pytest.mark.parametrize(("method", "backbone", "memory"), CELLS)
def test_two_updates(method, backbone, memory, tmp_path):
    """The trained networks change and no others; a resumed run is bitwise; the plan is true; and
    every trained tensor of every role gets a gradient in every update in which it is trained."""
    run = content(method, backbone, memory)
    if "size" in run["backbone"] and (method, backbone, memory) not in DEEPER:
        run["backbone"]["size"] = "test-tiny"
    resolved = resolve(run, ZOO, "test")
    assert refused(method, (backbone, memory)) == (method == "cda" and bidirectional(resolved))
    if refused(method, (backbone, memory)):
        with pytest.raises(ZooError, match="bidirectional and has no KV cache"):
            train(resolved, tmp_path / "refused", ZOO, "cpu")
        return
    with recorded_gradients() as steps:
        trainer = check_method(run["method"], run["backbone"], run["dataset"], ZOO)
    assert len(trainer.history) == 2  # the trainer refuses a value that is not finite
    assert all("student/loss" in logs for logs in trainer.history)
    check_gradients(trainer, steps, 2, without_gradient(method, backbone))


@pytest.mark.parametrize(
    ("method", "due"),
    [
        ("sc-dmd", {"self_consistency": [True, True]}),
        ("cda", {"self_consistency": [True, True], "cache_alignment": [True, False]}),
    ],
)
def test_every_term_is_due(method, due, tmp_path):
    """With `OPTIONS`, in the two updates: a rollout's list and exit step are drawn, and where they
    are not a term's own, the method is its plainer kin."""
    run = content(method, "toy-blocks", None)
    run["training"]["log_every"] = 1
    history = train(resolve(run, ZOO, "test"), tmp_path, ZOO, "cpu").history
    assert {term: [f"student/{term}" in logs for logs in history] for term in due} == due


#: Told of a first frame by channels and tokens (`i2v`), or by clean latents (`ti2v`). No method has
#: code for a first frame, so that each is there once; both sizes are with and without a memory.
#: (Every memory generates from `i2v` below.)
FROM_IMAGES = [
    ("cda", "test-small-i2v", "block-relative"),
    ("consistency", "test-small-ti2v", None),
    ("diffusion-forcing", "test-small-ti2v", "window"),
    ("dmd", "test-small-ti2v", "full"),
    ("ode-regression", "test-small-i2v", "full"),
    ("sc-dmd", "test-small-i2v", "window"),
    ("teacher-forcing", "test-small-i2v", None),
]


@pytest.mark.parametrize(("method", "size", "memory"), FROM_IMAGES)
def test_two_updates_from_an_image(method, size, memory):
    """The same where the condition has a first frame, of which no method knows."""
    run = content(method, "self-forcing" if memory else "wan", memory)
    trainer = check_method(run["method"], run["backbone"] | {"size": size}, run["dataset"], ZOO)
    assert len(trainer.history) == 2 and all("student/loss" in logs for logs in trainer.history)


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        *((memory.name, size) for memory in ZOO.memories for size in ("small", "small-i2v")),
        ("window", "small-ti2v"),
    ],
)
def test_a_memory_generates(memory, size):
    """A stream is the video; a pass changes nothing that is remembered; prompts may change."""
    part = content("dmd", "self-forcing", memory)["backbone"]
    check_memory(part | {"size": f"test-{size}"}, PROMPT, ZOO)


def test_any_memory_generates():
    check_memory("toy-blocks", "one", ZOO)


def without_gradient(method: str, backbone: str) -> set[str]:
    """The parameters that get none by construction; all of them are the toy's."""
    if backbone != "toy-blocks":
        return set()
    roles = ("student", "fake_score") if "fake_score" in OPTIONS.get(method, {}) else ("student",)
    found = {f"{role}: write" for role in roles}  # no gradient flows through a memory
    # how it looks at a memory: the passes of these have none
    found |= {f"{role}: look" for role in roles if role == "fake_score"}
    if method in ("diffusion-forcing", "ode-regression"):
        found.add("student: look")
    return {f"{name}.{part}" for name in found for part in ("weight", "bias")}


@pytest.mark.parametrize(("method", "backbone", "memory"), CELLS)
def test_bf16_gradients(method, backbone, memory, tmp_path):
    """The same tensors get a gradient."""
    if refused(method, (backbone, memory)):
        return  # see above
    changes, updates = content(method, backbone, memory), 1
    if (method, backbone, memory) in DEEPER:
        updates = 3
    elif "size" in changes["backbone"]:
        changes["backbone"]["size"] = "test-tiny"
    changes["training"] |= {"precision": "bf16", "updates": updates}
    with recorded_gradients() as steps:
        trainer = train(resolve(changes, ZOO, "test"), tmp_path, ZOO, "cpu")
    turns = [role for step in range(updates) for role in trainer.method.update_order(step)]
    assert len(steps) == sum(len(trainer.networks.optimizers[role]) for role in turns)
    check_gradients(trainer, steps, updates, without_gradient(method, backbone))


def check_gradients(trainer: Any, recorded: Any, updates: int, wanted: set[str]) -> None:
    """Of the first updates of `recorded`, which are the trainer's: `wanted` lack a gradient."""
    known = names(trainer.networks)
    turns = [role for step in range(updates) for role in trainer.method.update_order(step)]
    steps = recorded[: sum(len(trainer.networks.optimizers[role]) for role in turns)]
    lacking = {known[key] for step in steps for key, g in step.items() if g is None or not g.any()}
    assert lacking == wanted
    stepped = {key for step in steps for key in step}
    assert stepped == {id(p) for role in set(turns) for p in trainer.networks[role].parameters()}
    assert set(turns) == {r for r, part in trainer.networks.roles.items() if part.learning_rate}


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        (method, backbone)
        for method in METHODS
        for backbone in ("wan", "self-forcing")
        if not refused(method, (backbone, None))
    ],
)
def test_constants_are_on_the_device(method, backbone):
    """On the meta device, which mixes with the CPU's tensors as little as CUDA does."""
    part = content(method, backbone, None)
    part["backbone"]["size"] = "test-tiny"  # shapes are found in Python, block after block
    resolved = resolve(part, ZOO, "test")
    made = ZOO.backbones.create(backbone, resolved.backbone, ZOO).to("meta")
    subject = ZOO.methods.create(method, resolved.method, ZOO)
    with torch.device("meta"):
        networks = {role: made.network("random") for role in subject.roles()}
    rng = KeyedRNG(0, ("train",), range(2), "meta")
    x0 = rng.randn(made.latent_shape, "x0")
    condition, nothing = made.encode_prompts([PROMPT] * 2), made.encode_prompts(["", ""])
    batch = Batch([PROMPT] * 2, condition, nothing, x0 if subject.needs_data else None)
    for role in dict.fromkeys(subject.update_order(0)):
        networks[role].requires_grad_(True)
        step = TrainStep(
            role, 0, networks, batch, rng, made.blocks(), made.latent_shape,
            lambda loss: loss.backward(),
        )  # fmt: skip
        for name, value in subject.train(step).items():
            assert value.device.type == "meta", name
        networks[role].requires_grad_(False)


def bidirectional(resolved: Any) -> bool:
    name = resolved.config.backbone["name"]
    return ZOO.backbones.create(name, resolved.backbone, ZOO).blocks().new_memory is None


def test_every_method_and_every_memory_is_there():
    assert {method for method, *_ in DEEPER} == {method for method, *_ in FROM_IMAGES}
    assert {method for method, *_ in DEEPER} == {*METHODS}
    assert {(backbone, memory) for _, backbone, memory in DEEPER} == {*COLUMNS}
    kinds = {(size, memory is None) for _, size, memory in FROM_IMAGES}
    assert kinds == {(f"test-small-{size}", alone) for size in ("i2v", "ti2v")
                     for alone in (True, False)}  # fmt: skip


def test_the_matrix_is_not_empty():
    names = {method.name for method in ZOO.methods}
    assert {"consistency", "dmd", "sc-dmd", "cda", "teacher-forcing"} <= names
    assert {"diffusion-forcing", "ode-regression"} <= names
    assert {"full", "window", "window-int8", "block-relative", "ema-sink"} == {
        m.name for m in ZOO.memories
    }
    backbones = {backbone.name for backbone in ZOO.backbones}
    assert {"wan", "self-forcing", "gaussian", "toy-blocks"} <= backbones
    assert ZOO.broken == []
