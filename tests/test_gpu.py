"""What only a CUDA device can show: the same code there, in bf16, with the same draws."""

from __future__ import annotations

import gc

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.precision import precision_of, with_precision
from salt_zoo.planning.plan import GIB, plan_run
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.training.launch import train
from tests.one_update import TOLERANCES, Update, differences, one_update, without_gradient
from tests.test_matrix import content

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


@pytest.fixture(scope="module")
def zoo():
    return load_zoo(["tests.sizes.plugin"])


def test_a_network_makes_the_same_videos_on_both_devices(zoo):
    made = {}
    for device in ("cpu", "cuda"):
        backbone = zoo.backbones.create("wan", zoo.backbones.configure("wan", {}, "wan"), zoo)
        backbone.to(torch.device(device))
        rng = KeyedRNG(0, (), range(4), device)
        prompts = ["a 7 moving left slowly"] * 4
        network = backbone.network("teacher")
        made[device] = generate(network, backbone, prompts, rng, SamplingConfig(steps=4)).cpu()
    assert torch.allclose(made["cpu"], made["cuda"], atol=1e-2)


CELLS = [
    *((method, "wan") for method in ("consistency", "dmd", "sc-dmd", "ode-regression")),
    # teacher forcing and diffusion forcing are masked by flex_attention here
    *((m, "self-forcing") for m in ("dmd", "cda", "teacher-forcing", "diffusion-forcing")),
]


@pytest.mark.parametrize(("method", "backbone"), CELLS)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_one_update_is_the_cpus(zoo, method, backbone, precision, checkpointing, tmp_path):
    """The draws are the same on both devices, and so are losses and gradients, within rounding."""

    def update(device: str, precision: str) -> Update:
        changes = content(method, backbone, None)
        changes["training"] |= {
            "updates": 1,
            "batch_size": 4,
            "precision": precision,
        }
        changes["execution"] = {"gradient_checkpointing": checkpointing}
        return one_update(changes, zoo, tmp_path / device, device)

    exact, made = update("cpu", "fp32"), update("cuda", precision)
    assert without_gradient(made) == set()
    found = differences(made, exact)
    assert {name: d for name, d in found.items() if not d < TOLERANCES[precision]} == {}


@pytest.mark.parametrize(("method", "backbone"), CELLS)
def test_methods_train_on_cuda(zoo, method, backbone, tmp_path):
    changes = content(method, backbone, None)
    changes["training"] |= {"updates": 3, "batch_size": 4}
    trainer = train(resolve(changes, zoo, "test"), tmp_path, zoo, "cuda")
    for role, network in trainer.networks.items():
        assert precision_of(network) == "bf16"  # auto
        part = trainer.networks.roles[role]
        held = part.learning_rate is None and part.ema_of is None
        assert (torch.bfloat16 in {p.dtype for p in network.parameters()}) == held
        assert all(p.is_cuda and torch.isfinite(p).all() for p in network.parameters())


def test_tf32_is_allowed_in_passes_only():
    allowed: list[bool] = []
    matmul = torch.backends.cuda.matmul

    class Inside(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            allowed.append(matmul.allow_tf32)
            return x

    before = matmul.allow_tf32
    with_precision(Inside(), "tf32", "cuda")(torch.zeros(1, device="cuda"))
    with_precision(Inside(), "fp32", "cuda")(torch.zeros(1, device="cuda"))
    assert allowed == [True, False] and matmul.allow_tf32 == before


def test_offloaded_weights_leave_the_device(zoo, tmp_path):
    """By as much as the plan says; the update is the same, within rounding."""
    held, logs, plans = [], [], []
    for offload in ([], ["frozen", "averages"]):
        changes = content("dmd", "wan", None)
        changes["backbone"]["size"] = "test-large"
        changes["training"] |= {"updates": 1, "batch_size": 4}
        changes["execution"] = {"offload": offload}
        run = resolve(changes, zoo, "test")
        gc.collect()
        before = torch.cuda.memory_allocated()
        trainer = train(run, tmp_path / str(len(held)), zoo, "cuda")
        held.append(torch.cuda.memory_allocated() - before)
        logs.append(trainer.history)
        plans.append(plan_run(run, zoo, "cuda"))
        del trainer
    assert held[0] - held[1] == pytest.approx(plans[1].host * GIB, rel=0.1)
    for one, other in zip(*logs, strict=True):
        for key in one.keys() - {"seconds"}:
            assert other[key] == pytest.approx(one[key], rel=0.05), key
