"""Attention by other libraries: the same numbers but for rounding, or one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import yaml
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.methods.attention import attention_use, check_attention, choose_attention
from salt_zoo.core.networks.precision import with_precision
from salt_zoo.core.protocols import AttentionUse
from salt_zoo.training.launch import train
from salt_zoo_wan.transformer.attention_backends import try_backend
from tests.plugins import tiny_causal as tiny
from tests.test_matrix import ZOO, content

BACKBONES = ("wan", "self-forcing")
MATH = AttentionBackendName._NATIVE_MATH
#: Of a run in float32 here.
TRAINS = AttentionUse(torch.device("cpu"), torch.float32, backward=True)
SAMPLES = replace(TRAINS, backward=False)
#: A run for the command, which knows no sizes of tests.
ON_DIGITS = content("teacher-forcing", "wan", None) | {"backbone": {"name": "wan"}}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("DIFFUSERS_ATTN_BACKEND", raising=False)


@contextmanager
def replaced(monkeypatch, backend, function) -> Iterator[None]:
    """diffusers' function of a backend is `function(original, query, key, value)` inside."""
    known = attention_dispatch._AttentionBackendRegistry._backends
    original = known[backend]
    with monkeypatch.context() as patch:
        patch.setitem(known, backend, lambda query, key, value, **rest: function(
            lambda q, k, v: original(q, k, v, **rest), query, key, value
        ))  # fmt: skip
        yield


@contextmanager
def watched(monkeypatch, backend) -> Iterator[list[set[torch.dtype]]]:
    """The types of what each call of a backend is given."""
    calls: list[set[torch.dtype]] = []

    def look(original, *qkv):
        calls.append({x.dtype for x in qkv})
        return original(*qkv)

    with replaced(monkeypatch, backend, look):
        yield calls


def make(name, size="test-small-i2v"):
    """A network of text and image, and a pass of it."""
    part = {"size": size} | ({"memory": {"name": "full"}} if name == "self-forcing" else {})
    backbone = ZOO.backbones.create(name, ZOO.backbones.configure(name, part, "test"), ZOO)
    network = backbone.network("student").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *backbone.latent_shape, generator=generator)
    condition = dict(backbone.encode_prompts(["a 7 moving up quickly"] * 2))
    condition |= backbone.encode_images(torch.rand(2, *backbone.image_shape, generator=generator))
    return network, x, condition


def passed(network, x, condition):
    """The velocity; of a causal network that of its second block, given the first."""
    if not isinstance(network, tiny.CausalWanNetwork):
        return network(x, tiny.at(0.6), condition)
    memory = network.new_memory(x)
    first, second, *_ = network.partition.split(x.shape[2])
    network.update_cache(x[:, :, first], tiny.at(0.0), condition, memory)
    return network(x[:, :, second], tiny.at(0.6), condition, memory)


def velocity_and_gradients(network, x, condition):
    given = x.clone().requires_grad_()
    network.requires_grad_(True).zero_grad()
    v = passed(network, given, condition)
    v.square().mean().backward()
    weights = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return v.detach(), given.grad, torch.cat(weights)


@pytest.mark.parametrize("name", BACKBONES)
def test_backends_agree(name, monkeypatch):
    """In outputs and gradients; also where activations are recomputed, in a copy."""
    network, x, condition = make(name)
    wanted = velocity_and_gradients(network, x, condition)
    choose_attention(network, "native", "test", TRAINS)
    assert all(map(torch.equal, velocity_and_gradients(network, x, condition), wanted))
    for backend in ("_native_math", "_native_flash"):
        one = copy.deepcopy(network)
        choose_attention(one, backend, "test", TRAINS)
        other = copy.deepcopy(one)
        other.enable_gradient_checkpointing()
        with watched(monkeypatch, AttentionBackendName(backend)) as calls:
            found = velocity_and_gradients(one, x, condition)
            once = len(calls)
            again = velocity_and_gradients(other, x, condition)
        # of two layers self-attention and cross-attention to text and image; the memory's pass
        passes = 1 if name == "wan" else 2
        assert once == 2 * 3 * passes and len(calls) == once + 2 * 3 * (passes + 1)
        for mine, recomputed, its in zip(found, again, wanted, strict=True):
            assert tiny.relative_error(mine, its) < 1e-5
            assert torch.equal(mine, recomputed)
    with watched(monkeypatch, AttentionBackendName._NATIVE_MATH) as calls:
        assert all(map(torch.equal, velocity_and_gradients(network, x, condition), wanted))
    assert not calls  # what copies have chosen is theirs


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("name", BACKBONES)
def test_flex_attention_agrees(name):
    """It has no backward pass on a CPU."""
    network, x, condition = make(name)
    with torch.no_grad():
        wanted = passed(network, x, condition)
        choose_attention(network, "flex", "test", SAMPLES)
        assert tiny.relative_error(passed(network, x, condition), wanted) < 1e-5
    refusal = r"^here: 'flex' .* here \(for float32 on cpu, with gradients: .*\); write native$"
    with pytest.raises(ZooError, match=refusal):
        choose_attention(network, "flex", "here", TRAINS)


@pytest.mark.parametrize("name", BACKBONES)
def test_all_that_a_backend_is_given_is_in_bf16(name, monkeypatch):
    """Other libraries than torch know nothing of autocast."""
    network, x, condition = make(name)
    with_precision(network, "bf16", "cpu", frozen=True)
    with torch.no_grad():
        wanted = passed(network, x, condition)
        use = attention_use("bf16", "cpu", backward=False)
        choose_attention(network, "_native_math", "test", use)
        with watched(monkeypatch, MATH) as calls:
            found = passed(network, x, condition)
    assert calls and all(types == {torch.bfloat16} for types in calls)
    assert found.dtype == torch.float32 and tiny.relative_error(found, wanted) < 0.02


@pytest.mark.parametrize("name", BACKBONES)
def test_networks_name_their_backend(name, monkeypatch):
    """What the process has otherwise, by a variable of the environment, is not theirs."""
    network, x, condition = make(name)
    with torch.no_grad(), attention_backend(MATH), watched(monkeypatch, MATH) as calls:
        network(x, tiny.at(0.6), condition)
    assert not calls


def test_a_masked_pass_needs_no_backend(monkeypatch):
    network = tiny.network(tiny.policy("full"))
    choose_attention(network, "_native_math", "test", SAMPLES)
    with torch.no_grad(), watched(monkeypatch, MATH) as calls:
        network(tiny.video(6), tiny.at(0.5), tiny.prompt())
    assert len(calls) == 2  # to the prompt


def test_a_backend_is_tried(monkeypatch):
    """What it gives is looked at, because libraries may fail in silence."""

    def refusal(function):
        with replaced(monkeypatch, MATH, function), pytest.raises(ZooError) as caught:
            try_backend(MATH, 2, 12, TRAINS)
        return str(caught.value)

    said = refusal(lambda original, *qkv: original(*qkv).detach())
    assert said.endswith("(it has no backward pass, which training needs); write native")
    said = refusal(lambda original, *qkv: original(*qkv) * torch.nan)
    assert "it gives numbers that are not finite" in said
    try_backend(MATH, 2, 12, TRAINS)


REFUSED = {
    "flash": r"'flash' cannot be used here (.*install `flash-attn.*); write native",
    "sage": r"'sage' cannot be used here (.*install `sageattention.*); write native",
    "_native_cudnn": r"'_native_cudnn' cannot be used here (for float32 on cpu.*); write native",
    "flsh": r"unknown backend 'flsh'; did you mean 'flash'.*?",
}


@pytest.mark.parametrize("backend", REFUSED)
def test_the_commands_refuse(backend, cli, tmp_path):
    import re

    pattern = re.escape(REFUSED[backend]).replace(r"\.\*", ".*") + "$"
    prompt = "a 7 moving up quickly"
    for command in (("sample", prompt, "--backbone", "wan"),
                    ("stream", prompt, "--frames", 3, "--backbone", "self-forcing")):  # fmt: skip
        out = tmp_path / "x.gif"
        ended = cli(*command, "--size", "digits", "--out", out, "--device", "cpu",
                    "--attention", backend)  # fmt: skip
        assert ended.code == 2 and not out.exists()
        assert re.search(f"^error: --attention {backend}: {pattern}", ended.error)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(ON_DIGITS))
    ended = cli("train", tmp_path / "run.yaml", "--out", tmp_path / "run", "--device", "cpu",
                "--set", f"execution.attention={backend}")  # fmt: skip
    assert ended.code == 2 and not (tmp_path / "run").exists()
    assert re.search(f"execution.attention: {pattern}", ended.error)


def test_a_backbone_of_one_kind_is_refused():
    part = ZOO.backbones.configure("gaussian", {}, "test")
    backbone = ZOO.backbones.create("gaussian", part, ZOO)
    check_attention(backbone, "native", "here", TRAINS)
    with pytest.raises(ZooError, match=r"^here: this backbone's .* of one kind; write native$"):
        check_attention(backbone, "flash", "here", TRAINS)


def test_a_plan_is_the_same(cli, tmp_path):
    """Also of one that is not installed here: the machine that trains may be another."""
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(ON_DIGITS))
    plans = [
        cli("train", run, "--dry-run", "--set", f"execution.attention={name}")
        for name in ("native", "flash")
    ]
    assert [plan.code for plan in plans] == [0, 0]
    first, second = (plan.out for plan in plans)
    assert second == first.replace("attention=native", "attention=flash") and "GiB" in first


def test_a_run_resumes_under_another(tmp_path, monkeypatch):
    """It is no part of a run's identity, and numbers differ by rounding."""
    run = content("cda", "self-forcing", "window")
    run["training"] |= {"checkpoint_every": 1, "ema": {"decay": 0.5, "start": 0}}
    alone = train(resolve(run, ZOO, "test"), tmp_path / "alone", ZOO, "cpu")
    for updates, backend in ((1, "native"), (2, "_native_math")):
        part = run | {
            "training": run["training"] | {"updates": updates},
            "execution": {"attention": backend, "gradient_checkpointing": True},
        }
        with watched(monkeypatch, MATH) as calls:
            found = train(resolve(part, ZOO, "test"), tmp_path / "parts", ZOO, "cpu")
        assert bool(calls) == (backend == "_native_math")
    for row, its in zip(found.history, alone.history, strict=True):
        for key in row.keys() - {"seconds"}:
            assert row[key] == pytest.approx(its[key], rel=1e-4, abs=1e-6), key
    for name, value in alone.networks["student_ema"].state_dict().items():
        difference = found.networks["student_ema"].state_dict()[name] - value
        assert difference.abs().mean() < 1e-6  # two updates of 1e-3


def test_the_environment_is_told_of_and_not_taken(shell, tmp_path):
    """`flash` is not installed, and a plan is of the meta device."""
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(ON_DIGITS))
    variable = {"DIFFUSERS_ATTN_BACKEND": "flash"}
    ended = shell("-m", "salt_zoo", "train", run, "--dry-run", environment=variable)
    assert ended.code == 0 and "Traceback" not in ended.err, ended.err
    (line,) = [line for line in ended.err.splitlines() if "DIFFUSERS_ATTN_BACKEND" in line]
    assert line.startswith("warning: DIFFUSERS_ATTN_BACKEND=flash is of diffusers' own pipelines")


def test_perf_measures_with_it(tmp_path, monkeypatch):
    from benchmarks.perf import main

    few = ["--blocks", "2", "--growing", "2", "--recomputed", "0", "--repetitions", "1",
           "--pairs", "0", "--nfe", "1", "--batch", "1", "--memories", "full"]  # fmt: skip
    out = ["--device", "cpu", "--out", str(tmp_path)]
    with watched(monkeypatch, MATH) as calls:
        assert main([*few, *out, "--attention", "_native_math"]) == 0
    assert calls
    results = json.loads((tmp_path / "perf.json").read_text())
    assert results["settings"]["attention"] == "_native_math"
    assert "fp32, attention by _native_math" in (tmp_path / "perf.md").read_text()
