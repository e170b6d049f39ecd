"""LoRA files of Wan, read back by stock diffusers; extraction of a LoRA from a whole student."""

from __future__ import annotations

import copy
import json
import warnings

import pytest
import safetensors.torch
import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import safe_open
from torch import nn

from salt_zoo.core.base.errors import ZooError
from salt_zoo_digits.size import TRANSFORMER
from salt_zoo_wan.checkpoint.lora_extract import extract_lora
from salt_zoo_wan.checkpoint.lora_files import (
    LORA_FILE,
    LORA_FORMATS,
    merge_lora,
    read_lora,
    write_lora,
)

CONFIG = {**TRANSFORMER, "num_layers": 2, "ffn_dim": 64}


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return WanTransformer3DModel(**CONFIG).requires_grad_(False)


def linear(transformer):
    return {n: m for n, m in transformer.named_modules() if type(m) is nn.Linear and "blocks" in n}


def velocity(transformer):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, CONFIG["in_channels"], 2, 8, 8, generator=generator)
    text = torch.randn(1, 4, CONFIG["text_dim"], generator=generator)
    with torch.no_grad():
        return transformer(x, torch.tensor([700.0]), text, return_dict=False)[0]


def by_diffusers(base, path):
    """What a stock pipeline computes with a LoRA file."""
    pipeline = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=copy.deepcopy(base),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    return velocity(pipeline.transformer)


def close(one, other, relative=1e-5):
    return torch.linalg.norm(one - other) < relative * torch.linalg.norm(other)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a LoRA run of two updates whose scale is not 1."""
    from salt_zoo.cli import main

    folder = tmp_path_factory.mktemp("trained")
    content = {
        "method": {"name": "consistency", "learning_rate": 1e-2},
        "backbone": {"name": "wan", "size": "test-small"},
        "dataset": "digits",
        "training": {
            "updates": 2,
            "batch_size": 2,
            "trackers": [],
            "lora": {"student": {"rank": 4, "alpha": 12}},
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    command = ["train", str(folder / "run.yaml"), "--out", str(folder / "run")]
    assert main([*command, "-p", "tests/sizes/plugin.py"]) == 0
    return folder / "run"


@pytest.mark.parametrize("format", LORA_FORMATS)
def test_diffusers_reads_a_trained_lora(format, trained, cli, tmp_path):
    """A stock pipeline with the base and the exported LoRA is the merged student."""
    from salt_zoo.plugin.manager import load_zoo
    from salt_zoo_wan.backbone import WanBackboneConfig

    zoo = load_zoo(["tests.sizes.plugin"])
    backbone = zoo.backbones.create("wan", WanBackboneConfig(size="test-small"), zoo)
    base = backbone.network("teacher").transformer
    student = WanTransformer3DModel.from_pretrained(trained / "student" / "transformer")
    out = tmp_path / "lora.safetensors"
    plugin = ("-p", "tests/sizes/plugin.py")
    ended = cli("export", "--checkpoint", trained, "--format", format, "--out", out, *plugin)
    assert (ended.code, ended.out) == (0, f"{out}\n"), ended.err
    assert not close(velocity(base), velocity(student), 1e-3)
    assert close(by_diffusers(base, out), velocity(student))
    if format == "lora":
        assert close(by_diffusers(base, trained / "student" / LORA_FILE), velocity(student))
    ours = copy.deepcopy(base)
    merge_lora(ours, out)
    assert close(velocity(ours), velocity(student))


def test_extraction_in_closed_form(base, tmp_path):
    """A difference of known singular values; the error is that of Eckart and Young."""
    student = copy.deepcopy(base)
    values = torch.tensor([4.0, 3.0, 2.0, 1.0])
    for layer in linear(student).values():
        u = torch.linalg.qr(torch.randn(layer.out_features, 4))[0]
        v = torch.linalg.qr(torch.randn(layer.in_features, 4))[0]
        layer.weight += 0.05 * (u * values) @ v.T
    found = extract_lora(student, base, 2)
    expected = (5 / 30) ** 0.5
    assert found.errors.keys() == linear(base).keys()
    assert all(error == pytest.approx(expected, rel=1e-3) for error in found.errors.values())
    assert found.error == pytest.approx(expected, rel=1e-3)
    student.proj_out.bias += 1.0  # no LoRA has it
    more = extract_lora(student, base, 4)
    assert max(more.errors.values()) < 1e-3
    size = len(linear(base)) * 0.05**2 * 30
    lost = student.proj_out.bias.numel()
    assert more.error == pytest.approx((lost / (size + lost)) ** 0.5, rel=1e-3)
    student.proj_out.bias -= 1.0
    write_lora(more.factors, tmp_path / "a.safetensors", "lora")
    assert close(by_diffusers(base, tmp_path / "a.safetensors"), velocity(student), 1e-4)


def test_extraction_by_the_command(trained, cli, tmp_path):
    out = tmp_path / "lora.safetensors"
    command = ("export", "--checkpoint", trained, "-p", "tests/sizes/plugin.py", "--out", out)
    ended = cli(*command, "--format", "lora-kohya", "--rank", 4)
    assert (ended.code, ended.out) == (0, f"{out}\n")
    assert "relative error of the change" in ended.err
    with safe_open(out, framework="pt") as file:
        header = file.metadata()
    errors = json.loads(header["relative_errors"])  # the student is a LoRA of rank 4
    assert len(errors) == 2 * 10 and max(errors.values()) < 1e-2
    assert float(header["relative_error"]) < 1e-2
    ended = cli(*command, "--format", "wan", "--rank", 4)
    assert ended.code == 2 and "--rank: only for a LoRA" in ended.err


def test_alpha_and_metadata_are_read(base, tmp_path):
    shapes = {name: tuple(layer.weight.shape) for name, layer in linear(base).items()}
    a, b = torch.randn(2, 64), torch.randn(64, 2)
    name = "diffusion_model.blocks.0.self_attn.q"
    kohya = {"lora_unet_blocks_0_self_attn_q.lora_down.weight": a,
             "lora_unet_blocks_0_self_attn_q.lora_up.weight": b,
             "lora_unet_blocks_0_self_attn_q.alpha": torch.tensor(6.0)}  # fmt: skip
    plain = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    metadata = {
        "lora_adapter_metadata": json.dumps({"transformer.r": 2, "transformer.lora_alpha": 6})
    }
    for tensors, header, scale in ((kohya, None, 3), (plain, None, 1), (plain, metadata, 3)):
        safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", header)
        ((layer, (_, up)),) = read_lora(tmp_path / "a.safetensors", shapes).items()
        assert layer == "blocks.0.attn1.to_q" and torch.allclose(up, scale * b)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"diffusion_model.blocks.0.self_attn.q.dora_scale": (64,)}, "no part of a plain LoRA"),
        ({"blocks.9.self_attn.q.lora_A.weight": (2, 64)}, "belongs to no linear layer"),
        ({"blocks.0.self_attn.q.lora_A.weight": (2, 64)}, "only one of its two factors"),
        (
            {"blocks.0.self_attn.q.lora_A.weight": (2, 32),
             "blocks.0.self_attn.q.lora_B.weight": (64, 2)},
            "belongs to another size",
        ),
    ],
)  # fmt: skip
def test_other_files_are_refused(tensors, said, base, tmp_path):
    shapes = {name: tuple(layer.weight.shape) for name, layer in linear(base).items()}
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({n: torch.ones(s) for n, s in tensors.items()}, path)
    with pytest.raises(ZooError, match=said):
        read_lora(path, shapes)


NAME = "diffusion_model.blocks.0.self_attn.q"
A, B = torch.ones(2, 64), torch.ones(64, 2)
WHOLE = {f"{NAME}.lora_A.weight": A, f"{NAME}.lora_B.weight": B}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({f"{NAME}.alpha": torch.tensor(float("nan"))}, "is damaged"),
        ({f"{NAME}.alpha": torch.tensor(float("inf"))}, "is damaged"),
        ({f"{NAME}.alpha": torch.ones(2)}, "is damaged"),
        ({f"{NAME}.alpha": torch.ones(0)}, "is damaged"),
        ({f"{NAME}.lora_A.weight": A[:0], f"{NAME}.lora_B.weight": B[:, :0]}, "is damaged"),
        ({f"{NAME}.lora_A.weight": A * float("nan")}, "is damaged"),
        ({"transformer.blocks.0.attn1.to_q.lora_A.weight": A}, "twice, under several names"),
        ({"lora_unet_blocks_0_self_attn_q.lora_up.weight": B}, "twice, under several names"),
    ],
)
def test_factors_that_would_add_something_else(more, said, base, tmp_path):
    shapes = {name: tuple(layer.weight.shape) for name, layer in linear(base).items()}
    path = tmp_path / "a.safetensors"
    tensors = {name: value.clone() for name, value in (WHOLE | more).items()}
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(ZooError, match=said):
        read_lora(path, shapes)


@pytest.mark.parametrize("alpha", ["NaN", "Infinity", "-2", "1" + "0" * 400, "[]"])
def test_a_scale_that_is_none(alpha, base, tmp_path):
    shapes = {name: tuple(layer.weight.shape) for name, layer in linear(base).items()}
    path = tmp_path / "a.safetensors"
    header = {"lora_adapter_metadata": f'{{"r": 2, "lora_alpha": {alpha}}}'}
    safetensors.torch.save_file(WHOLE, path, header)
    with pytest.raises(ZooError, match="its scale cannot be told"):
        read_lora(path, shapes)


def test_a_student_begins_with_a_merged_lora(trained, tmp_path):
    """`backbone.initial: [teacher, FILE]`; a LoRA alone is refused with the way to give it."""
    from salt_zoo.plugin.manager import load_zoo
    from salt_zoo_self_forcing.backbone import SelfForcingBackboneConfig

    zoo = load_zoo(["tests.sizes.plugin"])

    def backbone(initial):
        config = SelfForcingBackboneConfig(size="test-small", initial=initial)
        return zoo.backbones.create("self-forcing", config, zoo)

    lora = str(trained / "student" / LORA_FILE)
    made = backbone(["teacher", lora])
    found = made.network("student").transformer.state_dict()
    student = WanTransformer3DModel.from_pretrained(trained / "student" / "transformer")
    assert all(torch.allclose(found[n], v, atol=1e-6) for n, v in student.state_dict().items())
    assert f"initial LoRA/{LORA_FILE}" in made.fingerprint()
    assert backbone("teacher").student_is_score and not made.student_is_score
    with pytest.raises(ZooError, match=r"a LoRA .*\[BASE, LORA\]"):
        backbone(lora).network("student")
    with pytest.raises(ZooError, match=r"there is no such file; see backbone\.initial"):
        backbone(["teacher", str(tmp_path / "none.safetensors")]).fingerprint()
