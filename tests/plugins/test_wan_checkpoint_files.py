"""What people have: files, shards, folders of Wan's own code and of diffusers; and other things."""

import json

import pytest
import safetensors.torch
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo.core.base.errors import ZooError
from salt_zoo_digits.size import CAUSAL, TRANSFORMER
from salt_zoo_wan.checkpoint.export import to_original
from salt_zoo_wan.checkpoint.load import load_transformer

DIFFUSERS = "diffusion_pytorch_model.safetensors"
#: `config.json` of Wan's own code.
WAN = {
    "_class_name": "WanModel", "_diffusers_version": "0.30.0", "dim": 64, "eps": 1e-6,
    "ffn_dim": 256, "freq_dim": 64, "in_dim": 11, "model_type": "t2v", "num_heads": 4,
    "num_layers": 4, "out_dim": 1, "text_len": 512,
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    """The shipped causal student under diffusers' names."""
    return safetensors.torch.load_file(CAUSAL / DIFFUSERS)


@pytest.fixture(scope="module")
def weights(theirs):
    return to_original(theirs)


def shards(weights, folder, stem="diffusion_pytorch_model", count=3, index=True):
    folder.mkdir(exist_ok=True)
    names, where = sorted(weights), {}
    for part in range(count):
        file = f"{stem}-{part + 1:05d}-of-{count:05d}.safetensors"
        own = {name: weights[name] for name in names[part::count]}
        safetensors.torch.save_file(own, folder / file)
        where |= dict.fromkeys(own, file)
    path = folder / f"{stem}.safetensors.index.json"
    if index:
        path.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


def loads(place, theirs):
    state = load_transformer(place, TRANSFORMER).state_dict()
    assert state.keys() == theirs.keys()
    assert all(torch.equal(state[key], theirs[key]) for key in theirs)


def message(place):
    with pytest.raises(ZooError) as error:
        load_transformer(place, TRANSFORMER)
    text = str(error.value)
    assert "\n" not in text and len(text) < 450 and str(place) in text, text
    return text


def test_shards(weights, theirs, tmp_path):
    index = shards(weights, tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(json.dumps(WAN))
    loads(index, theirs)
    loads(index.parent, theirs)
    loads(tmp_path / "a" / "diffusion_pytorch_model-00002-of-00003.safetensors", theirs)
    shards(theirs, tmp_path / "b", "model", index=False)
    loads(tmp_path / "b", theirs)
    loads(tmp_path / "b" / "model-00003-of-00003.safetensors", theirs)


def test_a_shard_that_is_missing(weights, tmp_path):
    index = shards(weights, tmp_path)
    gone = "diffusion_pytorch_model-00002-of-00003.safetensors"
    (tmp_path / gone).unlink()
    for place in (index, tmp_path, tmp_path / gone.replace("00002-", "00001-")):
        with pytest.raises(ZooError, match=f"{gone} of the model's 3 shards is not beside it"):
            load_transformer(place, TRANSFORMER)


@pytest.mark.parametrize(
    "content",
    ['{"weight_map": {"x": "../../etc/x"}}', "[]", "{", '{"weight_map": {}}', "[" * 99999],
)
def test_an_index_that_is_none(content, tmp_path):
    path = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(content)
    assert "download it again" in message(path)


@pytest.mark.parametrize(
    "kind", ["wan", "wan beside codecs", "diffusers", "pipeline", "run", "file"]
)
def test_folders(kind, weights, theirs, tmp_path):
    inner = {"pipeline": "transformer", "run": "student/transformer"}.get(kind, ".")
    folder = tmp_path / "a" / inner
    folder.mkdir(parents=True)
    if kind.startswith("wan"):
        safetensors.torch.save_file(weights, folder / DIFFUSERS)
        (folder / "config.json").write_text(json.dumps(WAN))
    elif kind == "file":
        torch.save({"generator": weights}, folder / "model.pt")
    else:
        WanTransformer3DModel.from_pretrained(CAUSAL).save_pretrained(folder)
    if kind in ("wan beside codecs", "file"):
        for name in ("models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth", "optimizer.pt"):
            torch.save({"encoder.conv1.weight": torch.zeros(2, 2)}, folder / name)
    loads(tmp_path / "a", theirs)


@pytest.mark.parametrize("mixed", [torch.bfloat16, torch.float16])
def test_mixed_precision(mixed, weights, tmp_path):
    some = {k: v.to(mixed) if k.startswith("blocks.1") else v for k, v in weights.items()}
    torch.save(some, tmp_path / "w.pt")
    state = to_original(load_transformer(tmp_path / "w.pt", TRANSFORMER).state_dict())
    assert all(torch.equal(state[k], v.float()) for k, v in some.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_not_finite(value, kind, weights, tmp_path):
    bad = weights["blocks.2.ffn.0.weight"].clone()
    bad[3, 5] = value
    safetensors.torch.save_file(
        {**weights, "blocks.2.ffn.0.weight": bad.to(kind)}, tmp_path / "w.safetensors"
    )
    text = message(tmp_path / "w.safetensors")
    assert f"'blocks.2.ffn.0.weight' has 1 of {bad.numel()} numbers that are not finite" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eps", 1e-2), ("num_layers", 3), ("num_layers", 10**6), ("num_layers", "x"),
        ("qk_norm", None), ("patch_size", [0, 0, 0]), ("rope_max_seq_len", 64), ("nope", 1),
        ("cross_attn_norm", 1), ("_class_name", "Evil"),
    ],
)  # fmt: skip
def test_a_config_that_says_something_else(key, value, tmp_path):
    WanTransformer3DModel.from_pretrained(CAUSAL).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ZooError) as error:
        load_transformer(tmp_path, TRANSFORMER)
    named = "class" if key == "_class_name" else key
    assert str(path) in str(error.value) and named in str(error.value)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "{", "\xff", '{"_class_name": "WanModel", "dim": 3}']
)
def test_a_damaged_config(content, weights, tmp_path):
    safetensors.torch.save_file(weights, tmp_path / DIFFUSERS)
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    assert "cannot be loaded" in message(tmp_path)


def test_wans_config_of_another_model(weights, tmp_path):
    safetensors.torch.save_file(weights, tmp_path / DIFFUSERS)
    (tmp_path / "config.json").write_text(json.dumps({**WAN, "eps": 1e-5}))
    assert "eps is 1e-05, expected 1e-06" in message(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**WAN, "model_type": "i2v", "in_dim": 36}))
    assert "in_channels is 36, expected 11" in message(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**WAN, "model_type": "ti2v", "eps": 1e-5}))
    assert "eps is 1e-05, expected 1e-06" in message(tmp_path)  # Wan 2.2's 5 B, a Wan like any
    (tmp_path / "config.json").write_text(json.dumps({**WAN, "model_type": "s2v"}))
    assert "of the kind 's2v'" in message(tmp_path)


def test_a_distributed_checkpoint(weights, tmp_path):
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": dict(weights)}, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    part = next((tmp_path / "dcp").glob("*.distcp"))
    for place in (tmp_path / "dcp", part):
        assert "dcp_to_torch" in message(place)
    # what the line tells to do works
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "w.pt")
    assert load_transformer(tmp_path / "w.pt", TRANSFORMER) is not None


def test_other_folders(weights, tmp_path):
    assert "without a whole transformer" in message(tmp_path)
    (tmp_path / "step-3").mkdir()
    safetensors.torch.save_file(weights, tmp_path / "step-3" / "a.safetensors")
    assert f"give {tmp_path / 'step-3'}" in message(tmp_path)
    safetensors.torch.save_file(weights, tmp_path / "step-3" / "b.safetensors")
    assert "several files of weights (a.safetensors, b.safetensors)" in message(tmp_path / "step-3")
    (tmp_path / "zero_to_fp32.py").write_text("")
    assert "a DeepSpeed checkpoint" in message(tmp_path)
    (tmp_path / "high_noise_model").mkdir()
    (tmp_path / "zero_to_fp32.py").unlink()
    assert "a Wan 2.2 of two networks" in message(tmp_path)


LINEAR = "blocks.0.ffn.0.weight"
OTHERS = {
    "differences": ({f"diffusion_model.{LINEAR[:-7]}.diff": torch.ones(2, 2)}, "a LoRA"),
    "bias differences": ({f"x.y.{LINEAR[:-7]}.diff_b": torch.ones(2, 2)}, "a LoRA"),
    "LyCORIS": ({"lycoris_blocks_0_ffn_0.lokr_w1": torch.ones(2, 2)}, "a LoRA"),
    "DoRA": ({f"net.{LINEAR[:-7]}.dora_scale": torch.ones(2, 2)}, "a LoRA"),
    "OFT": ({"transformer.blocks.0.attn.oft_R.weight": torch.ones(2, 2)}, "a LoRA"),
    "a VAE below": ({"vae.encoder.conv1.weight": torch.ones(2), "vae.x.y": torch.ones(2)}, "a VAE"),
    "T5 below": ({"a.token_embedding.weight": torch.ones(2), "a.c.d": torch.ones(2)}, "a text enc"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_below_any_prefix(name, tmp_path):
    content, words = OTHERS[name]
    torch.save(content, tmp_path / "w.pt")
    assert words in message(tmp_path / "w.pt")


SCALES = [
    *("weight_scale_inv", "weight_scale", "scale_weight", "input_scale", "weight.absmax", "SCB"),
    *("weight.quant_state.bitsandbytes__nf4", "weight.quant_map", "qweight", "wscales"),
    *("weight_zero_point", "weight._data"),
]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("prefix", ["", "net.", "model.diffusion_model."])
def test_quantised_models(scale, prefix, weights, tmp_path):
    whole = {prefix + key: value for key, value in weights.items()}
    torch.save({**whole, f"{prefix}blocks.0.ffn.0.{scale}": torch.ones(1)}, tmp_path / "w.pt")
    assert "a quantised model" in message(tmp_path / "w.pt")


STARTS = {
    "NumPy": b"\x93NUMPY\1",
    "HDF5": b"\x89HDF\r\n",
    "gzip": b"\x1f\x8b\x08",
    "tar": b"x" * 257 + b"ustar\0",
    "GGUF": b"GGUF\3",
}


@pytest.mark.parametrize(("words", "start"), STARTS.items())
def test_files_of_other_kinds(start, words, tmp_path):
    (tmp_path / "w.pt").write_bytes(start + bytes(300))
    assert words in message(tmp_path / "w.pt")


def test_programs_and_archives(tmp_path):
    import numpy as np

    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    assert "a TorchScript program" in message(tmp_path / "w.pt")
    np.savez(tmp_path / "w.npz", x=np.zeros(3))
    assert "NumPy arrays" in message(tmp_path / "w.npz")
