"""Every file that is not the wanted Wan says in one line what it is and what was expected."""

import itertools
import json
from collections import deque
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from salt_zoo.core.base.errors import ZooError
from salt_zoo_wan.checkpoint.check import parameter_shapes
from salt_zoo_wan.checkpoint.load import load_transformer
from salt_zoo_wan.published_configs import PUBLISHED
from tests.parity.g1 import transformer_config

GOLDENS = Path(__file__).parents[1] / "goldens"
CONFIG = transformer_config(json.loads((GOLDENS / "g1_bidirectional.json").read_text())["config"])
SMALL = "3 blocks of width 48 with 16 input channels"


@pytest.fixture(scope="module")
def weights():
    return safetensors.torch.load_file(GOLDENS / "g1_bidirectional_weights.safetensors")


def message(source, config=CONFIG, entry=None):
    """The one line with which `source` is refused."""
    with pytest.raises(ZooError) as error:
        load_transformer(source, config, entry)
    text = str(error.value)
    assert "\n" not in text and len(text) < 400, text
    assert error.value.exit_code == 2
    return text


def zeros(*names):
    return {name: torch.zeros(2, 2) for name in names}


def i2v(weights):
    """Wan's image-to-video model under its original names."""
    patches = torch.zeros(48, 36, 1, 2, 2)
    image = zeros("img_emb.proj.0.weight", "blocks.0.cross_attn.k_img.weight")
    return {**weights, "patch_embedding.weight": patches, **image}


LORA = zeros(
    "base_model.model.model.blocks.0.self_attn.q.lora_A.default.weight",
    "base_model.model.model.blocks.0.self_attn.q.lora_B.default.weight",
)
CONTENTS = {
    "LongLive's LoRA": (lambda w: {"generator_lora": LORA, "critic_lora": LORA}, "a LoRA"),
    "a generator of LoRA layers": (lambda w: {"generator": LORA}, "a LoRA"),
    "a LoRA file": (lambda w: zeros("diffusion_model.blocks.0.ffn.0.lora_down.weight"), "a LoRA"),
    "not merged": (lambda w: {**w, **zeros("blocks.0.ffn.0.lora_A.weight")}, "a LoRA"),
    "both": (lambda w: {"generator": w, "generator_lora": LORA}, "LoRA that is not merged"),
    "a critic": (lambda w: {"critic": w, "step": 3}, "a critic, not a generator"),
    "a critic and its optimizer": (
        lambda w: {"critic": w, "optimizer": {"state": {}, "param_groups": []}},
        "a critic, not a generator",
    ),
    "a flat critic": (lambda w: {f"fake_score.model.{k}": v for k, v in w.items()}, "a critic"),
    "an optimizer": (lambda w: {"state": {0: w}, "param_groups": []}, "an optimizer's state"),
    "a process's part": (lambda w: zeros("_fsdp_wrapped_module._flat_param"), "FSDP"),
    "scaled": (lambda w: {**w, **zeros("blocks.0.ffn.0.scale_weight")}, "a quantised model"),
    "Wan's text encoder": (
        lambda w: zeros("token_embedding.weight", "blocks.0.attn.q.weight", "norm.weight"),
        "a text encoder",
    ),
    "Wan's VAE": (lambda w: zeros("encoder.conv1.weight", "conv1.weight"), "a VAE"),
    "Wan's CLIP": (lambda w: zeros("visual.cls_embedding", "log_scale"), "an image encoder"),
    "an I2V": (i2v, "an image-to-video model (it has an image branch, 'img_emb')"),
    "36 channels": (
        lambda w: {**w, "patch_embedding.weight": torch.zeros(48, 36, 1, 2, 2)},
        "an image-to-video model, 3 blocks of width 48 with 36 input channels",
    ),
    "VACE": (lambda w: {**w, **zeros("vace_blocks.0.after_proj.bias")}, "a VACE model"),
    "Animate": (lambda w: {**w, **zeros("face_adapter.x.bias")}, "a Wan Animate model"),
    "fewer blocks": (
        lambda w: {k: v for k, v in w.items() if not k.startswith("blocks.2.")},
        f"2 blocks of width 48 with 16 input channels; expected {SMALL}",
    ),
    "another width": (
        lambda w: {**w, "patch_embedding.weight": torch.zeros(64, 16, 1, 2, 2)},
        "3 blocks of width 64",
    ),
    "another patch": (
        lambda w: {**w, "patch_embedding.weight": torch.zeros(48, 16, 1, 4, 4)},
        "'patch_embedding.weight' is 48x16x1x4x4, expected 48x16x1x2x2",
    ),
    "another network": (lambda w: zeros("unet.conv.weight"), "not a Wan transformer"),
    "patches only": (lambda w: zeros("patch_embedding.weight"), "not a Wan transformer"),
    "integers": (lambda w: {k: v.char() for k, v in w.items()}, "is of int8 numbers"),
    "twice": (lambda w: {**w, "model.head.modulation": torch.zeros(1)}, "'head.modulation' twice"),
    "text for a tensor": (lambda w: {**w, "head.head.bias": "x"}, "'head.head.bias' is a str"),
    "numbers for names": (lambda w: {"generator": {0: torch.zeros(1), "a.b": torch.zeros(1)}}, "0"),
    "other entries": (lambda w: {"args": {"lr": 1}, "step": 3}, "a checkpoint of 'args', 'step'"),
    "optimizers": (lambda w: {"optimizer": {"state": {}}}, "a checkpoint of 'optimizer'"),
    "an average that is none": (lambda w: {"generator_ema": None, "critic": w}, "a critic"),
    "nothing": (lambda w: {}, "empty"),
    "one number": (lambda w: {"step": torch.tensor(3)}, "a checkpoint of 'step'"),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("as_file", [False, True])
def test_other_contents(name, as_file, weights, tmp_path):
    make, words = CONTENTS[name]
    content = make(dict(weights))
    if as_file:
        torch.save(content, tmp_path / "model.pt")
        content = tmp_path / "model.pt"
    text = message(content)
    assert words in text
    assert text.startswith(f"{tmp_path}/model.pt: " if as_file else "the weights: ")


def test_what_transformers_and_diffusers_save():
    with torch.device("meta"):
        text = UMT5EncoderModel(UMT5Config(num_layers=1, d_model=8, d_ff=8, vocab_size=9))
        vae = AutoencoderKLWan(base_dim=8, z_dim=2)
        image = WanTransformer3DModel(
            **{**CONFIG, "in_channels": 36}, image_dim=8, added_kv_proj_dim=48
        )
    assert ": a text encoder; expected a text-to-video Wan of" in message(text.state_dict())
    assert ": a VAE; expected" in message(vae.state_dict())
    assert ": an image-to-video model" in message(image.state_dict())


def test_published_sizes_have_their_names():
    small, large = (PUBLISHED[f"wan2.1-t2v-{size}"].transformer for size in ("1.3b", "14b"))
    with torch.device("meta"):
        state = WanTransformer3DModel(**large).state_dict()
    assert message(state, small) == (
        "the weights: 40 blocks of width 5120 with 16 input channels (wan2.1-t2v-14b); expected "
        "30 blocks of width 1536 with 16 input channels (wan2.1-t2v-1.3b): choose the size that "
        "the file belongs to"
    )


def test_missing_and_unknown_tensors_are_named(weights):
    missing = {k: v for k, v in weights.items() if k != "head.head.bias"}
    text = message(missing)
    assert "not whole" in text and f"1 of {len(weights)}" in text and "'head.head.bias'" in text
    text = message({**missing, "other.x": torch.zeros(3)})
    assert "'head.head.bias'" in text and "'other.x'" in text
    text = message({**weights, "other.x": torch.zeros(3)})
    assert "1 tensors are not Wan's ('other.x')" in text
    text = message({**weights, "head.head.bias": torch.zeros(3)})
    assert "'head.head.bias' is 3, expected 64" in text


def test_an_entry_that_is_not_there(weights):
    other = {k: torch.zeros_like(v) for k, v in weights.items()}
    text = message({"generator": weights, "critic": other}, entry="generator_ema")
    assert "has no 'generator_ema' but 'generator', 'critic'" in text
    assert "has no 'generator' but tensors without an entry" in message(weights, entry="generator")
    beside = {"generator": weights, "generator_lora": LORA}
    assert load_transformer(beside, CONFIG, "generator") is not None


def test_the_entry_can_be_chosen(weights):
    other = {k: torch.zeros_like(v) for k, v in weights.items()}
    content = {"generator": other, "generator_ema": weights, "critic": weights, "step": 1}
    assert load_transformer(content, CONFIG).proj_out.weight.any()
    assert load_transformer(content, CONFIG, "generator_ema").proj_out.weight.any()
    assert not load_transformer(content, CONFIG, "generator").proj_out.weight.any()


def test_entries_in_themselves(weights):
    content = {}
    content["model"] = content
    assert "a checkpoint of 'model'" in message(content)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
@pytest.mark.parametrize("length", [0, 1, 7, 9, 30, 400, 5000, -1])
def test_truncated_files(ending, length, weights, tmp_path):
    path = tmp_path / f"w{ending}"
    safetensors.torch.save_file(weights, path) if ending != ".pt" else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:length])
    text = message(path)
    assert text.startswith(f"{path}: ")
    assert "incomplete or corrupt" in text or "is empty" in text


class Code:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("thing", "name"), [(Code(), "print"), (deque([1]), "collections.deque")])
def test_a_pickle_with_code(thing, name, zipped, weights, tmp_path, capsys):
    path = tmp_path / "w.pt"
    torch.save({"generator": weights, "x": thing}, path, _use_new_zipfile_serialization=zipped)
    text = message(path)
    assert f"a pickle that would run code ({name})" in text
    assert "weights_only" not in text and "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b'{"abcd":{"weight_map": 1}}', "a text file (JSON)"),
        (b"GGUF\x03\0\0\0", "a quantised GGUF"),
        (b"hello world, this is nothing", "incomplete or corrupt"),
    ],
)
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_other_kinds_of_files(content, words, ending, tmp_path):
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    assert words in message(path)


def test_places_without_weights(weights, tmp_path):
    assert "there is no such file" in message(tmp_path / "none.pt")
    assert "a folder without a whole transformer" in message(tmp_path)
    part = tmp_path / "diffusion_pytorch_model-00001-of-00006.safetensors"
    safetensors.torch.save_file(weights, part)
    assert "part 1 of 6 of a model; " in message(part) and "of the model's 6" in message(part)
    torch.save([1, 2], tmp_path / "list.pt")
    assert "holds a list" in message(tmp_path / "list.pt")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "w.pt").write_bytes(b"x")

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert "cannot be read (Permission denied)" in message(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("written", "named"), list(itertools.product(["safetensors", "pt"], repeat=2))
)
def test_a_files_first_bytes_say_what_it_is(written, named, weights, tmp_path):
    path = tmp_path / f"w.{named}"
    torch.save(weights, path) if written == "pt" else safetensors.torch.save_file(weights, path)
    assert load_transformer(path, CONFIG) is not None


def test_shapes_are_those_of_a_configuration_and_found_once():
    shapes = parameter_shapes(CONFIG)
    state = WanTransformer3DModel(**CONFIG).state_dict()
    assert shapes == {name: tuple(value.shape) for name, value in state.items()}
    assert parameter_shapes({**CONFIG, "patch_size": [*CONFIG["patch_size"]]}) is shapes
    assert len(parameter_shapes({**CONFIG, "num_layers": 1})) < len(shapes)
