"""Weights in Wan's original format, against outputs of the original code (case G1)."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from salt_zoo.core.base.errors import ZooError
from salt_zoo_wan.checkpoint.load import load_transformer
from salt_zoo_wan.transformer.network import WanNetwork

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "tests" / "goldens", ROOT.parent / "shared" / "goldens")
GOLDENS = next((f for f in FOLDERS if (f / "g1_bidirectional.safetensors").is_file()), None)

pytestmark = pytest.mark.skipif(GOLDENS is None, reason="the parity case G1 is not there")


@pytest.fixture(scope="module")
def case():
    return safetensors.torch.load_file(GOLDENS / "g1_bidirectional.safetensors")


@pytest.fixture(scope="module")
def weights():
    return safetensors.torch.load_file(GOLDENS / "g1_bidirectional_weights.safetensors")


@pytest.fixture(scope="module")
def config():
    released = json.loads((GOLDENS / "g1_bidirectional.json").read_text())["config"]
    return {
        "patch_size": released["patch_size"],
        "num_attention_heads": released["num_heads"],
        "attention_head_dim": released["dim"] // released["num_heads"],
        "in_channels": released["in_dim"],
        "out_channels": released["out_dim"],
        "text_dim": released["text_dim"],
        "freq_dim": released["freq_dim"],
        "ffn_dim": released["ffn_dim"],
        "num_layers": released["num_layers"],
        "cross_attn_norm": released["cross_attn_norm"],
        "eps": released["eps"],
    }


def velocity(transformer, case):
    with torch.no_grad():
        return WanNetwork(transformer)(
            case["in/x"], case["in/t"] / 1000, {"text": case["in/context"]}
        )


def test_the_network_is_the_original_one(case, config):
    transformer = load_transformer(GOLDENS / "g1_bidirectional_weights.safetensors", config)
    expected = case["out/velocity"]
    error = (velocity(transformer, case) - expected).norm() / expected.norm()
    assert error < 1e-5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"generator_ema": {f"model.{k}": v for k, v in state.items()}, "step": 7},
        lambda state: {"generator": {f"model.{k}": v for k, v in state.items()}},
        lambda state: {
            "generator": {f"model._fsdp_wrapped_module.{k}": v for k, v in state.items()}
        },
        lambda state: {f"model.{k}": v for k, v in state.items()},
        lambda state: {f"model.diffusion_model.{k}": v for k, v in state.items()},
    ],
)
def test_wrappers_of_training_codes(wrap, weights, case, config, tmp_path):
    plain = velocity(load_transformer(weights, config), case)
    torch.save(wrap(weights), tmp_path / "checkpoint.pth")
    loaded = load_transformer(tmp_path / "checkpoint.pth", config)
    assert torch.equal(velocity(loaded, case), plain)


def test_files_of_old_torch(weights, case, config, tmp_path):
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = load_transformer(tmp_path / "old.pth", config)
    assert torch.equal(velocity(loaded, case), velocity(load_transformer(weights, config), case))


def test_the_average_is_taken_before_the_last_weights(weights, case, config):
    other = {k: torch.zeros_like(v) for k, v in weights.items()}
    loaded = load_transformer({"generator": other, "generator_ema": weights}, config)
    assert torch.equal(velocity(loaded, case), velocity(load_transformer(weights, config), case))


def test_the_caller_keeps_its_tensors(weights, config):
    before = set(weights)
    load_transformer(weights, config)
    assert set(weights) == before


def test_diffusers_names_are_taken_too(weights, case, config, tmp_path):
    transformer = load_transformer(weights, config)
    safetensors.torch.save_file(transformer.state_dict(), tmp_path / "w.safetensors")
    again = load_transformer(tmp_path / "w.safetensors", config)
    assert torch.equal(velocity(again, case), velocity(transformer, case))


def test_one_file_as_the_teacher(zoo, weights, tmp_path, monkeypatch, config, case):
    """`weights: file` of a backbone: its configuration is the published one."""
    from salt_zoo_wan import published_configs as configs

    path = tmp_path / "original.safetensors"
    safetensors.torch.save_file(weights, path)
    monkeypatch.setattr(
        "salt_zoo_wan.published.published_size.PUBLISHED",
        {
            "wan2.1-t2v-1.3b": configs.Published(
                "nobody/has-this", config, configs.PUBLISHED["wan2.1-t2v-1.3b"].bytes
            )
        },
    )
    options = {"size": "wan2.1-t2v-1.3b", "options": {"weights": str(path)}}
    backbone = zoo.backbones.create("wan", zoo.backbones.configure("wan", options, "t"), zoo)
    network = backbone.network("teacher")
    expected = velocity(load_transformer(weights, config), case)
    assert torch.equal(velocity(network.transformer, case), expected)
    assert "transformer/original.safetensors" in backbone.fingerprint()
    assert [d["parts"] for d in backbone.downloads()] == [["text_encoder", "tokenizer", "vae"]]


def without(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: without(s, "head.head.bias"), "not whole"),
        (lambda s: without(s, "patch_embedding.weight"), "not a Wan transformer"),
        (lambda s: {k: v for k, v in s.items() if "blocks.2." not in k}, "2 blocks of width 48"),
        (lambda s: {"generator": {"patch_embedding.weight": "text"}}, "not a tensor"),
        (lambda s: {}, "empty; expected a Wan transformer"),
        (lambda s: {**s, "head.head.bias": torch.zeros(3)}, "is 3, expected 64"),
        (
            lambda s: {**without(s, "head.head.bias"), "other": torch.zeros(3)},
            "not whole, or of another model",
        ),
    ],
)
def test_other_contents(change, words, weights, config):
    with pytest.raises(ZooError, match=words) as error:
        load_transformer(change(dict(weights)), config)
    assert "\n" not in str(error.value)


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def test_damaged_and_unsafe_files(weights, config, tmp_path, capsys):
    whole = tmp_path / "whole.safetensors"
    safetensors.torch.save_file(weights, whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:5000])
    torch.save(weights, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:5000])
    torch.save({"generator": Malicious()}, tmp_path / "unsafe.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, words in {
        "cut.safetensors": "an incomplete or corrupt safetensors file",
        "cut.pth": "incomplete or corrupt weights file",
        "unsafe.pth": "would run code",
        "list.pth": "holds a list",
        "none.pth": "no such file",
    }.items():
        with pytest.raises(ZooError, match=words) as error:
            load_transformer(tmp_path / name, config)
        assert "\n" not in str(error.value)
    assert "code ran" not in capsys.readouterr().out
