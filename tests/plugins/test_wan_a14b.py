"""Wan 2.2's A14B, two experts, as a teacher: a tiny Wan of its structure for 140 GB."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.first_frame import of_image
from salt_zoo.core.flow import step_list
from salt_zoo.core.networks.precision import with_precision
from salt_zoo.costs.counter import PassCounter
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo_wan.checkpoint.export import to_original
from salt_zoo_wan.components import Components
from tests.plugins.test_wan_published_sizes import no_network  # noqa: F401
from tests.plugins.tiny_i2v import SHAPE, TRANSFORMER
from tests.plugins.tiny_text import text_encoder

SIZES = {"wan2.2-t2v-a14b": 0.875, "wan2.2-i2v-a14b": 0.9}
PROMPTS = ["a red fox", "waves"]


def save_tiny(size, folder):
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanImageToVideoPipeline,
        WanPipeline,
    )
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import ByT5Tokenizer

    kinds = {"wan2.2-t2v-a14b": (WanPipeline, 16), "wan2.2-i2v-a14b": (WanImageToVideoPipeline, 36)}
    kind, channels = kinds[size]
    plain = {key: value for key, value in TRANSFORMER.items() if key[:5] not in ("image", "added")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = kind(
            tokenizer=ByT5Tokenizer(),
            text_encoder=text_encoder(),
            vae=AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
            scheduler=UniPCMultistepScheduler(),
            transformer=WanTransformer3DModel(**{**plain, "in_channels": channels}),
            transformer_2=WanTransformer3DModel(**{**plain, "in_channels": channels}),
            boundary_ratio=SIZES[size],
        )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=list(SIZES))
def tiny(request, tmp_path_factory):
    return request.param, save_tiny(request.param, tmp_path_factory.mktemp("tiny") / "a14b")


def make_backbone(zoo, size, folder, name="wan", beside=None, **options):
    content = {
        "size": size,
        "options": {**SHAPE, "weights": str(folder), "negative_prompt": "dull", **options},
        **(beside or {}),
    }
    return zoo.backbones.create(name, zoo.backbones.configure(name, content, "test"), zoo)


def make_image():
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(3, 32, 48, generator=generator) * 255).round() / 255


def test_a_stock_pipeline_samples_what_the_teacher_does(zoo, tiny):
    """4 steps at 1, 0.94, 0.83 and 0.63: two of each expert."""
    import diffusers

    from salt_zoo_wan.pipeline import scheduler_config

    size, folder = tiny
    assert sum(t >= SIZES[size] for t in step_list(4, 5.0)) == 2
    backbone = make_backbone(zoo, size, folder)
    image = make_image() if backbone.image_shape else None
    config = SamplingConfig(steps=4, sampler="ode", guidance_scale=4.0)
    ours = generate(
        backbone.network("teacher"), backbone, PROMPTS[:1], KeyedRNG(3, rows=range(1)), config,
        first_frames=None if image is None else of_image(backbone, image),
    )  # fmt: skip
    kind = diffusers.WanPipeline if image is None else diffusers.WanImageToVideoPipeline
    pipe = kind.from_pretrained(folder)
    scheduler = diffusers.FlowMapEulerDiscreteScheduler
    pipe.scheduler = scheduler.from_config(scheduler_config())
    pixels = None if image is None else np.asarray((image * 255).round().byte().permute(1, 2, 0))
    theirs = pipe(
        **({} if pixels is None else {"image": PIL.Image.fromarray(pixels)}),
        prompt=PROMPTS[0], negative_prompt="dull", num_inference_steps=4, height=32, width=48,
        num_frames=9, guidance_scale=4.0, output_type="latent",
        latents=KeyedRNG(3, rows=range(1)).randn(backbone.latent_shape, "initial noise"),
    ).frames  # fmt: skip
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_each_row_goes_to_its_own_expert(zoo, tiny):
    size, folder = tiny
    backbone = make_backbone(zoo, size, folder)
    both = backbone.network("teacher").requires_grad_(False)
    single = {side: make_backbone(zoo, size, folder, expert=side).network("teacher")
              for side in ("high", "low")}  # fmt: skip
    t = torch.tensor([0.2, 0.95, SIZES[size], 0.5])
    x = KeyedRNG(3, rows=range(4)).randn(backbone.latent_shape, "x").requires_grad_()
    condition = dict(backbone.encode_prompts(PROMPTS * 2))
    if backbone.image_shape:
        condition |= backbone.encode_images(make_image().expand(4, -1, -1, -1))
    v = both(x, t, condition)
    hidden = both.features(x, t, condition, 0.5)
    for row, side in enumerate(("low", "high", "high", "low")):
        one = {name: value[row : row + 1] for name, value in condition.items()}
        given = x[row : row + 1], t[row : row + 1], one
        torch.testing.assert_close(v[row : row + 1], single[side](*given))
        torch.testing.assert_close(hidden[row : row + 1], single[side].features(*given, 0.5))
    (gradient,) = torch.autograd.grad(v.square().sum(), x)
    assert gradient.flatten(1).norm(dim=1).min() > 0


def test_features_are_a_pass_like_any_other(zoo, tiny):
    """In the whole network's precision, and counted."""
    size, folder = tiny
    backbone = make_backbone(zoo, size, folder)
    network = with_precision(backbone.network("teacher"), "bf16", torch.device("cpu"), frozen=True)
    counter = PassCounter({"teacher": network}, backbone.latent_shape[1])
    x = KeyedRNG(3, rows=range(2)).randn(backbone.latent_shape, "x")
    condition = dict(backbone.encode_prompts(PROMPTS))
    if backbone.image_shape:
        condition |= backbone.encode_images(make_image().expand(2, -1, -1, -1))
    with torch.no_grad():
        hidden = network.features(x, torch.tensor([0.2, 0.95]), condition, 0.5)
    assert hidden.isfinite().all()
    assert counter.counts["teacher"] == {"forward": 1.0, "backward": 0.0}  # 2 videos, half deep


# from an image it would need first frames of a dataset, and is the same otherwise
@pytest.mark.parametrize("tiny", ["wan2.2-t2v-a14b"], indirect=True)
def test_a_student_of_one_expert_trains_under_the_teacher_of_two(train, tiny, tmp_path):
    size, folder = tiny
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"prompt {number}" for number in range(9)))
    options = {**SHAPE, "weights": str(folder)}
    trainer = train(
        tmp_path / "run",
        method={"name": "dmd", "steps": 2, "fake_score": {"updates": 1}, "learning_rate": 1e-4},
        backbone={
            "name": "self-forcing", "size": size, "options": {**options, "expert": "low"},
            "teacher": {"size": size, "options": options},
        },
        dataset={"name": "prompts", "file": str(prompts), "held_out": 2},
        training={"updates": 1, "checkpoint_every": 1},
    )  # fmt: skip
    assert trainer.history[0]["student/loss"] > 0
    assert type(trainer.networks["teacher"]).__name__ == "WanExperts"
    trainer.backbone.save(trainer.networks.eval_network, tmp_path / "student")
    index = json.loads((tmp_path / "student" / "model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline" and "transformer_2" not in index


@pytest.mark.parametrize("size", SIZES)
def test_the_full_sizes_without_their_weights(zoo, size):
    """On the meta device: two networks of 14.29 B, and a plan's pass."""
    from salt_zoo.core.networks.condition import example

    backbone = zoo.backbones.create(
        "wan", zoo.backbones.configure("wan", {"size": size}, "test"), zoo
    ).to("meta")
    with torch.device("meta"):
        network = backbone.network("random")
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(2 * 14.29e9, rel=2e-3)
    for one in (network.high, network.low):
        one.transformer.blocks = one.transformer.blocks[:2]  # all of 40 are alike
    x = torch.empty(1, *backbone.latent_shape, device="meta")
    assert network(x, torch.empty(1, device="meta"), example(backbone)).shape == x.shape
    (download,) = backbone.downloads()
    assert "transformer_2" in download["parts"]
    parts = backbone.codec_modules()
    of_weights = 4 * (count + sum(p.numel() for m in parts.values() for p in m.parameters()))
    assert download["bytes"] == pytest.approx(of_weights, rel=0.01)


def native(folder, transformer):
    """A network in the layout of Wan's own code, whose `config.json` tells of no image branch."""
    folder.mkdir(parents=True)
    safetensors.torch.save_file(
        to_original(transformer.state_dict()), folder / "diffusion_pytorch_model.safetensors"
    )
    config = {
        "_class_name": "WanModel", "_diffusers_version": "0.33.0", "dim": 24, "eps": 1e-6,
        "ffn_dim": 48, "freq_dim": 32, "in_dim": transformer.config.in_channels,
        "model_type": "i2v" if transformer.config.in_channels == 36 else "t2v", "num_heads": 2,
        "num_layers": 2, "out_dim": 16, "text_dim": 32, "text_len": 512,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def same(network, transformer):
    mine, theirs = network.transformer.state_dict(), transformer.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_wans_own_folders_of_experts(zoo, tiny, tmp_path):
    """As the network that is trained and as a student's first weights; none has an image branch."""
    size, folder = tiny
    read = WanTransformer3DModel.from_pretrained
    high, low = read(folder, subfolder="transformer"), read(folder, subfolder="transformer_2")
    native(tmp_path / "high_noise_model", high)
    native(tmp_path / "low_noise_model", low)
    for weights in (tmp_path, tmp_path / "low_noise_model"):
        backbone = make_backbone(zoo, size, weights, expert="low", codecs=str(folder))
        assert same(backbone.network("teacher"), low)
        if backbone.image_shape:
            assert backbone.encode_images(make_image()[None]).keys() == {"channels"}
        assert backbone.downloads() == []
    beside = {"initial": str(tmp_path / "high_noise_model"), "block_frames": 1}
    causal = make_backbone(zoo, size, folder, "self-forcing", beside, expert="low")
    assert same(causal.network("student"), high) and same(causal.network("teacher"), low)


def split(folder):
    """One file of a native folder in two shards with an index."""
    whole = folder / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    parts = {f"diffusion_pytorch_model-0000{n + 1}-of-00002.safetensors": names[n::2]
             for n in (0, 1)}  # fmt: skip
    for file, mine in parts.items():
        safetensors.torch.save_file({name: tensors[name] for name in mine}, folder / file)
    index = {"weight_map": {name: file for file, mine in parts.items() for name in mine}}
    (folder / f"{whole.name}.index.json").write_text(json.dumps(index))


def test_wans_own_folder_of_both_experts(zoo, tiny, tmp_path):
    """The same networks, digests of both, and loading by slices as of the diffusers folder."""
    size, folder = tiny
    read = WanTransformer3DModel.from_pretrained
    root = tmp_path / "own"
    for name, part in (("high_noise_model", "transformer"), ("low_noise_model", "transformer_2")):
        split(native(root / name, read(folder, subfolder=part)))
    own, stock = (make_backbone(zoo, size, place, codecs=str(folder)) for place in (root, folder))
    wanted = stock.network("teacher").state_dict()
    found = own.network("teacher")
    assert found.boundary == SIZES[size]
    for state in (
        found.state_dict(),
        own.load(root).state_dict(),  # as `--checkpoint`
        own.stored_weights("teacher").tensors,
    ):
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], value) for name, value in wanted.items())
    assert own.downloads() == []
    digests = own.fingerprint()
    assert {name.partition("/")[0] for name in digests} == {
        name.partition("/")[0] for name in stock.fingerprint()
    }
    before = {name: value for name, value in digests.items() if name.startswith("transformer_2/")}
    assert len(before) == 2
    weights = root / "low_noise_model" / "diffusion_pytorch_model-00001-of-00002.safetensors"
    tensors = safetensors.torch.load_file(weights)
    safetensors.torch.save_file({name: 2 * tensors[name] for name in tensors}, weights)
    changed = make_backbone(zoo, size, root, codecs=str(folder)).fingerprint()
    assert {name for name in digests if digests[name] != changed[name]} == {
        f"transformer_2/{weights.name}"
    }
    causal = {"initial": str(root), "block_frames": 1}
    student = make_backbone(zoo, size, folder, "self-forcing", causal, expert="high")
    assert same(student.network("student"), stock.network("teacher").high.transformer)
    (root / "low_noise_model").rename(root / "elsewhere")
    for expert in ("both", "low"):
        with pytest.raises(
            ZooError, match=f"no low_noise_model, which expert={expert} needs .* expert to high$"
        ):
            make_backbone(zoo, size, root, expert=expert)


def test_wan_21s_own_folder_has_an_image_branch(zoo, tiny, tmp_path):
    """Its `config.json` says the same as that of Wan 2.2's experts."""
    one = WanTransformer3DModel(**{**TRANSFORMER, "image_dim": 1280})
    folder = native(tmp_path / "a", one)
    backbone = make_backbone(zoo, "wan2.1-i2v-14b-480p", folder, codecs=str(tiny[1]))
    assert same(backbone.network("teacher"), one)
    with pytest.raises(ZooError, match=r"an image-to-video model \(it has an image branch"):
        make_backbone(zoo, "wan2.2-i2v-a14b", folder, codecs=str(tiny[1]), expert="low").network(
            "teacher"
        )


A14B = {"size": "wan2.2-t2v-a14b"}
LOW = {**A14B, "options": {"expert": "low"}}
GB = {"expert": 57.2, "codecs": 23.2, "1.3B": 5.7}


@pytest.mark.parametrize(
    ("name", "part", "parts", "size"),
    [
        ("wan", LOW, ["transformer_2"], GB["expert"]),
        ("self-forcing", LOW, ["transformer_2"], GB["expert"]),
        ("self-forcing", {**LOW, "teacher": LOW}, ["transformer_2"], GB["expert"]),
        (
            "self-forcing",
            {**LOW, "teacher": A14B},
            ["transformer", "transformer_2"],
            2 * GB["expert"],
        ),
        ("self-forcing", {"size": "wan2.1-t2v-1.3b"}, ["transformer"], GB["1.3B"]),
    ],
)
def test_what_is_downloaded_is_counted_once(name, part, parts, size, zoo, monkeypatch):
    """And is what `prepare` asks for."""
    monkeypatch.setattr(Components, "find", lambda self, part: None)
    backbone = zoo.backbones.create(name, zoo.backbones.configure(name, part, "test"), zoo)
    (download,) = backbone.downloads()
    assert download["parts"] == [*parts, "text_encoder", "tokenizer", "vae"]
    assert download["bytes"] / 1e9 == pytest.approx(size + GB["codecs"], abs=0.1)
    command = download["command"]
    assert [word for word in command.split('"') if word.endswith("/*")] == [
        f"{part}/*" for part in download["parts"]
    ]
    asked = []
    monkeypatch.setattr(Components, "folder", lambda self, part: asked.append((self.source, part)))
    backbone.prepare()
    assert {part for _, part in asked} == set(download["parts"])


def test_a_teachers_own_part_alone_is_named(zoo, no_network):  # noqa: F811
    """A student's codecs are not fetched once more with its teacher."""
    part = {"size": "wan2.1-t2v-1.3b", "teacher": {**A14B, "options": {"expert": "high"}}}
    backbone = zoo.backbones.create(
        "self-forcing", zoo.backbones.configure("self-forcing", part, "test"), zoo
    )
    mine = {one["source"]: one for one in backbone.downloads()}
    if large := mine.get("Wan-AI/Wan2.2-T2V-A14B-Diffusers"):
        assert large["parts"] == ["transformer"]
    with pytest.raises(
        ZooError, match=r'A14B-Diffusers --include "transformer/\*" \(about 57.2 GB'
    ):
        backbone.teacher.size.prepare(backbone.teacher.size.transformers)
