"""What only a CUDA device can show: the same code there, in bf16, with the same draws."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.draws import Draws
from salt_zoo.plugins import load_zoo
from salt_zoo.run import resolve, train
from salt_zoo.sampling import SamplingConfig, generate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


@pytest.fixture(scope="module")
def zoo():
    return load_zoo()


def test_a_network_makes_the_same_videos_on_both_devices(zoo):
    made = {}
    for device in ("cpu", "cuda"):
        backbone = zoo.backbones.create("wan", zoo.backbones.configure("wan", {}, "wan"), zoo)
        backbone.to(torch.device(device))
        draws = Draws(0, (), range(4), device)
        prompts = ["a 7 moving left slowly"] * 4
        network = backbone.network("teacher")
        made[device] = generate(network, backbone, prompts, draws, SamplingConfig(steps=4)).cpu()
    assert torch.allclose(made["cpu"], made["cuda"], atol=1e-2)


CELLS = [
    *((method, "wan") for method in ("consistency", "dmd", "sc-dmd")),
    # teacher forcing and diffusion forcing are masked by flex_attention here
    *((m, "self-forcing") for m in ("dmd", "cda", "teacher-forcing", "diffusion-forcing")),
]


@pytest.mark.parametrize(("method", "backbone"), CELLS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_methods_train_on_cuda(zoo, method, backbone, precision, tmp_path):
    content = {
        "method": method,
        "backbone": {"name": backbone, "size": "digits"},
        "dataset": "digits",
        "training": {
            "updates": 3,
            "batch_size": 4,
            "precision": precision,
            "gradient_checkpointing": True,
            "trackers": [],
        },
    }
    trainer = train(resolve(content, zoo, "test"), tmp_path, zoo, "cuda")
    weights = list(trainer.networks["student"].parameters())
    assert all(p.is_cuda and p.dtype == torch.float32 and torch.isfinite(p).all() for p in weights)
