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
    "sc-dmd": {"steps": 2, "fake_score": {"updates": 2}},
    "cda": {
        "steps": 2,
        "fake_score": {"updates": 2},
        "objectives": {"cache-alignment": {"start": 0}},
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

CELLS = [
    pytest.param(method.name, backbone.name, memory, id=f"{method.name}-{backbone.name}-{memory}")
    for method in ZOO.methods
    for backbone in ZOO.backbones
    for memory in memories(backbone.name)
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
    """The trained networks change and no others; a resumed run is bitwise; the plan is true."""
    run = content(method, backbone, memory)
    resolved = resolve(run, ZOO, "test")
    if method == "cda" and bidirectional(resolved):
        with pytest.raises(ZooError, match="bidirectional and has no KV cache"):
            train(resolved, tmp_path / "refused", ZOO, "cpu")
        return
    trainer = check_method(run["method"], run["backbone"], run["dataset"], ZOO)
    assert len(trainer.history) == 2  # the trainer refuses a value that is not finite
    assert all("student/loss" in logs for logs in trainer.history)


#: Told of a first frame by channels and tokens (`i2v`), or by clean latents (`ti2v`).
FROM_IMAGES = [
    *((method.name, "test-small-i2v", "block-relative") for method in ZOO.methods),
    *((method, "test-small-i2v", None) for method in ("dmd", "teacher-forcing")),
    *((method, "test-small-ti2v", "window") for method in ("dmd", "diffusion-forcing")),
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


def without_gradient(method: str, backbone: str, roles: Any) -> set[str]:
    """The parameters that get none by construction; all of them are the toy's."""
    if backbone != "toy-blocks":
        return set()
    found = {f"{role}: write" for role in roles}  # no gradient flows through a memory
    # how it looks at a memory: the passes of these have none
    found |= {f"{role}: look" for role in roles if role == "fake_score"}
    if method in ("diffusion-forcing", "ode-regression"):
        found.add("student: look")
    return {f"{name}.{part}" for name in found for part in ("weight", "bias")}


@pytest.mark.parametrize(("method", "backbone", "memory"), CELLS)
def test_bf16_gradients(method, backbone, memory, tmp_path):
    """Every trained tensor of every role gets a gradient in every update in which it is trained."""
    changes = content(method, backbone, memory)
    changes["training"] |= {"precision": "bf16", "updates": 3}
    resolved = resolve(changes, ZOO, "test")
    if method == "cda" and bidirectional(resolved):
        return  # refused, see above
    with recorded_gradients() as steps:
        trainer = train(resolved, tmp_path, ZOO, "cpu")
    known = names(trainer.networks)
    turns = [role for step in range(3) for role in trainer.method.update_order(step)]
    assert len(steps) == sum(len(trainer.networks.optimizers[role]) for role in turns)
    lacking = {known[key] for step in steps for key, g in step.items() if g is None or not g.any()}
    assert lacking == without_gradient(method, backbone, set(turns))
    stepped = {key for step in steps for key in step}
    assert stepped == {id(p) for role in set(turns) for p in trainer.networks[role].parameters()}
    assert set(turns) == {r for r, part in trainer.networks.roles.items() if part.learning_rate}


@pytest.mark.parametrize("backbone", ["wan", "self-forcing"])
@pytest.mark.parametrize("method", [method.name for method in ZOO.methods])
def test_constants_are_on_the_device(method, backbone):
    """On the meta device, which mixes with the CPU's tensors as little as CUDA does."""
    part = content(method, backbone, None)
    resolved = resolve(part, ZOO, "test")
    made = ZOO.backbones.create(backbone, resolved.backbone, ZOO).to("meta")
    if method == "cda" and made.blocks().new_memory is None:
        return  # refused, see above
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
