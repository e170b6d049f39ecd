"""Wan's original names and files: the inverse of diffusers' conversion, bit for bit."""

import itertools
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from salt_zoo.core.base.errors import ZooError
from salt_zoo_wan.checkpoint.export import export_transformer, to_original
from salt_zoo_wan.checkpoint.formats import FORMATS, original_name, without_wrappers
from salt_zoo_wan.checkpoint.load import load_transformer
from salt_zoo_wan.checkpoint.select import select_transformer
from salt_zoo_wan.published_configs import PUBLISHED
from tests.parity.g1 import transformer_config

GOLDENS = Path(__file__).parents[1] / "goldens"
FILE = GOLDENS / "g1_bidirectional_weights.safetensors"
CONFIG = transformer_config(json.loads((GOLDENS / "g1_bidirectional.json").read_text())["config"])

WRAPPERS = [
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_orig_mod",
    "module",
]


@pytest.fixture(scope="module")
def weights():
    return safetensors.torch.load_file(FILE)


def same(left, right):
    """Whether two state dicts are equal in names, precision and every bit."""
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype, key
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (left[key], right[key])]
        assert torch.equal(*raw), key
    return True


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_name_of_the_published_models_comes_back(size):
    with torch.device("meta"):
        names = list(WanTransformer3DModel(**PUBLISHED[size].transformer).state_dict())
    originals = {original_name(name): name for name in names}
    assert len(originals) == len(names) and None not in originals
    converted = {
        key: next(iter(convert_wan_transformer_to_diffusers({key: torch.zeros(1)})))
        for key in originals
    }
    assert converted == originals


def test_export_of_import_is_the_golden_file(weights, tmp_path):
    export_transformer(load_transformer(FILE, CONFIG), tmp_path / "again.safetensors")
    assert same(safetensors.torch.load_file(tmp_path / "again.safetensors"), weights)


@pytest.mark.parametrize("format", FORMATS)
def test_import_of_export_is_the_transformer(format, tmp_path):
    torch.manual_seed(1)
    transformer = WanTransformer3DModel(**CONFIG)
    path = tmp_path / f"deep/w{next(iter(FORMATS[format].endings), '')}"
    export_transformer(transformer, path, format)
    assert os.listdir(path.parent) == [path.name]
    assert same(load_transformer(path, CONFIG).state_dict(), transformer.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("format", FORMATS)
def test_half_precision(format, dtype, tmp_path):
    """Written as it is; read as float32 of the same values."""
    torch.manual_seed(1)
    transformer = WanTransformer3DModel(**CONFIG).to(dtype)
    path = tmp_path / f"w{next(iter(FORMATS[format].endings), '')}"
    export_transformer(transformer, path, format)
    loaded = load_transformer(path, CONFIG)
    assert loaded.dtype == torch.float32
    assert same({k: v.to(dtype) for k, v in loaded.state_dict().items()}, transformer.state_dict())
    assert same(loaded.state_dict(), transformer.float().state_dict())


def test_mixed_precision(weights):
    half = {k: v.bfloat16() if "ffn" in k else v for k, v in weights.items()}
    wanted = {k: v.float() for k, v in half.items()}
    assert same(to_original(load_transformer(half, CONFIG).state_dict()), wanted)
    mixed = WanTransformer3DModel(**CONFIG)
    mixed.blocks.bfloat16()
    kinds = {k: v.dtype for k, v in to_original(mixed.state_dict()).items()}
    assert kinds["blocks.0.ffn.0.bias"] == torch.bfloat16
    assert kinds["head.head.bias"] == torch.float32


@pytest.mark.parametrize(
    ("format", "entry"), [("self-forcing", "generator"), ("self-forcing-ema", "generator_ema")]
)
def test_the_wrapped_file_is_as_the_codes_read_it(format, entry, weights, tmp_path):
    """`WanDiffusionWrapper.load_state_dict(torch.load(path)[entry])`, strictly."""
    export_transformer(load_transformer(FILE, CONFIG), tmp_path / "model.pt", format)
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(content) == [entry]
    assert same(content[entry], {f"model.{k}": v for k, v in weights.items()})


def test_a_view_is_saved_without_the_rest_of_its_storage(tmp_path):
    transformer = WanTransformer3DModel(**CONFIG)
    size = sum(v.nbytes for v in transformer.state_dict().values())
    transformer.proj_out.weight.data = torch.zeros(10**6)[: transformer.proj_out.weight.numel()]
    transformer.proj_out.weight.data = transformer.proj_out.weight.data.view(-1, 48)
    export_transformer(transformer, tmp_path / "w.pt", "self-forcing")
    assert (tmp_path / "w.pt").stat().st_size < size + 200_000


def test_a_compiled_transformer(weights, tmp_path):
    compiled = torch.compile(load_transformer(FILE, CONFIG))  # nothing is run, nothing compiled
    export_transformer(compiled, tmp_path / "w.safetensors")
    assert same(safetensors.torch.load_file(tmp_path / "w.safetensors"), weights)


@given(st.data())
@settings(max_examples=60)
def test_wrappers_in_any_place_and_order(data):
    name = data.draw(
        st.sampled_from(
            ["patch_embedding.weight", "blocks.3.self_attn.norm_q.weight", "head.modulation"]
        )
    )
    some = st.lists(st.sampled_from(WRAPPERS), max_size=3)
    outer = st.lists(st.sampled_from([*WRAPPERS, "model", "diffusion_model"]), max_size=4)
    parts = [[*data.draw(some), part] for part in name.split(".")]
    wrapped = [*data.draw(outer), *itertools.chain.from_iterable(parts)]
    assert without_wrappers(".".join(wrapped)) == name


@given(
    prefix=st.lists(st.sampled_from([*WRAPPERS, "model"]), max_size=4),
    inner=st.lists(st.sampled_from(WRAPPERS), max_size=2),
    outer=st.lists(st.sampled_from(["generator", "generator_ema"]), min_size=1, unique=True),
    around=st.lists(st.sampled_from(["model", "state_dict", "module"]), max_size=2),
    flat=st.booleans(),
)
@settings(max_examples=60)
def test_wrapped_checkpoints(weights, prefix, inner, outer, around, flat):
    def wrap(name):
        parts = name.split(".")
        parts[1:1] = inner if parts[0] == "blocks" else []
        return ".".join([*prefix, *parts])

    tensors = {
        entry: {wrap(k): v + number for k, v in weights.items()}
        for number, entry in enumerate(["generator", "generator_ema"])
        if entry in outer
    }
    critic = {wrap(k): torch.zeros(()) for k in weights}
    if flat:
        tensors["critic"] = critic
        content = {f"{e}.{k}": v for e, part in tensors.items() for k, v in part.items()}
    else:
        content = {"critic": critic, **tensors}
        content |= {"optimizer": {"state": {0: {"step": 1}}}, "step": 7, "config": None}
    for key in around:
        content = {key: content, "epoch": 3}
    for entry in (None, *outer):
        wanted = entry or ("generator_ema" if "generator_ema" in outer else "generator")
        added = 1 if wanted == "generator_ema" else 0
        assert same(
            select_transformer(content, entry=entry), {k: v + added for k, v in weights.items()}
        )


@pytest.mark.parametrize("name", ["wan", "self-forcing"])
def test_students_of_both_backbones(name, zoo, teacher, tmp_path):
    options = {"size": "digits", "options": {"weights": str(teacher)}}
    backbone = zoo.backbones.create(name, zoo.backbones.configure(name, options, "t"), zoo)
    network = backbone.network("random")
    backbone.export(network, tmp_path / "w.pt", "self-forcing")
    transformer = network.transformer
    config = {k: v for k, v in transformer.config.items() if not k.startswith("_")}
    loaded = load_transformer(tmp_path / "w.pt", config)
    assert same(loaded.state_dict(), transformer.state_dict())


def test_the_callers_transformer_is_as_before(tmp_path):
    transformer = WanTransformer3DModel(**CONFIG).double()
    before = {k: v.clone() for k, v in transformer.state_dict().items()}
    export_transformer(transformer, tmp_path / "w.safetensors")
    assert same(transformer.state_dict(), before)


@pytest.mark.parametrize(
    ("name", "format", "words"),
    [
        ("w.pt", "wan", "ends in .safetensors"),
        ("w.safetensors", "self-forcing", r"ends in .pt or .pth"),
        ("w.pt", "self-forcin", "did you mean 'self-forcing'"),
        ("w.pt", "gguf", "known: diffusers, self-forcing, self-forcing-ema, wan"),
    ],
)
def test_wrong_targets(name, format, words, tmp_path):
    with pytest.raises(ZooError, match=words) as error:
        export_transformer(WanTransformer3DModel(**CONFIG), tmp_path / name, format)
    assert "\n" not in str(error.value) and not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        "blocks.0.attn1.to_q.lora_A.default.weight",
        "blocks.0.attn1.add_k_proj.weight",
        "condition_embedder.image_embedder.pos_embed",
        "blocks.0.attn1",
        "blocks.0.proj_out.weight",
        "ffn.net.2.bias",
    ],
)
def test_tensors_without_an_original_name(key, tmp_path):
    with pytest.raises(ZooError, match=f"'{key}' has no name") as error:
        to_original({key: torch.zeros(1)})
    assert "\n" not in str(error.value)


def test_a_model_from_two_images_is_not_half_written(tmp_path):
    image = {"image_dim": 8, "added_kv_proj_dim": 48, "pos_embed_seq_len": 514}
    transformer = WanTransformer3DModel(**CONFIG, **image)
    with pytest.raises(ZooError, match="pos_embed' has no name in Wan's format"):
        export_transformer(transformer, tmp_path / "w.safetensors")
    assert not os.listdir(tmp_path)


def test_a_failing_writer_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "w.pt"
    path.write_text("before")

    def fail(content, draft):
        draft.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        export_transformer(WanTransformer3DModel(**CONFIG), path, "self-forcing")
    assert os.listdir(tmp_path) == ["w.pt"] and path.read_text() == "before"


@pytest.mark.parametrize(
    ("name", "format"),
    [("w.safetensors", "wan"), ("w.pt", "self-forcing"), ("w.pth", "self-forcing-ema")],
)
def test_one_network_is_one_file(name, format, tmp_path):
    """The bytes do not depend on the process that writes, or on the time."""
    transformer = load_transformer(FILE, CONFIG)
    for folder in ("first", "second"):
        export_transformer(transformer, tmp_path / folder / name, format)
    assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
