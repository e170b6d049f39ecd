"""Wan 2.1 image-to-video, with a tiny Wan of its structure in place of 92 GB."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from salt_zoo.conformance import check_metric
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.first_frame import of_image
from salt_zoo.core.networks.condition import unconditional
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.rollout.stream import stream
from tests.plugins.tiny_i2v import (
    SHAPE,
    SIZE,
    TRANSFORMER,
    as_pil,
    block_by_block,
    make_image,
    save_pipeline,
)

PROMPTS = ["a red fox", "waves"]
NEGATIVE = "blurred"


@pytest.fixture(scope="module")
def tiny_wan(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "i2v")


def make_backbone(zoo, name="wan", beside=None, **options):
    content = {"size": SIZE, "options": {**SHAPE, **options}, **(beside or {})}
    return zoo.backbones.create(name, zoo.backbones.configure(name, content, "test"), zoo)


@pytest.fixture
def backbone(zoo, tiny_wan):
    return make_backbone(zoo, weights=str(tiny_wan), negative_prompt=NEGATIVE)


def noise(backbone, count=2):
    return KeyedRNG(3, rows=range(count)).randn(backbone.latent_shape, "initial noise")


def condition_of(backbone, seeds=(0, 1)):
    images = torch.stack([make_image(seed) for seed in seeds])
    prompts = [PROMPTS[place % 2] for place in range(len(seeds))]
    return {**backbone.encode_prompts(prompts), **backbone.encode_images(images)}


def test_the_condition_is_the_stock_pipelines(backbone, tiny_wan):
    from diffusers import WanImageToVideoPipeline

    pipe = WanImageToVideoPipeline.from_pretrained(tiny_wan)
    found = backbone.encode_images(torch.stack([make_image(0), make_image(1)]))
    assert found["channels"].shape == (2, 20, 3, 4, 6) and found["image"].shape == (2, 257, 16)
    for row in range(2):
        image = as_pil(make_image(row))
        pixels = pipe.video_processor.preprocess(image, height=32, width=48)
        _, channels = pipe.prepare_latents(
            pixels, 1, 16, 32, 48, 9, torch.float32, "cpu", None, noise(backbone, 1)
        )
        torch.testing.assert_close(found["channels"][row], channels[0])
        torch.testing.assert_close(found["image"][row], pipe.encode_image(image, "cpu")[0])


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_stock_pipeline_samples_what_we_sample(backbone, tmp_path, scale):
    """Opened from our export; guidance leads away from the negative prompt, not from the image."""
    from diffusers import WanImageToVideoPipeline

    student = backbone.network("student")
    backbone.save(student, tmp_path)
    pipe = WanImageToVideoPipeline.from_pretrained(tmp_path)
    config = SamplingConfig(steps=4, sampler="ode", guidance_scale=scale)
    image = make_image()
    ours = generate(
        student, backbone, PROMPTS[:1], KeyedRNG(3, rows=range(1)), config,
        first_frames=of_image(backbone, image),
    )  # fmt: skip
    theirs = pipe(
        as_pil(image), PROMPTS[0], negative_prompt=NEGATIVE, num_inference_steps=4, height=32,
        width=48, num_frames=9, guidance_scale=scale, latents=noise(backbone, 1),
        output_type="latent",
    ).frames  # fmt: skip
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    readme = (tmp_path / "README.md").read_text()
    assert "WanImageToVideoPipeline" in readme and "resize((48, 32))" in readme
    assert "pipeline_tag: image-to-video" in readme and "\n    image,\n" in readme


def test_a_saved_student_comes_back_bitwise(zoo, backbone, tiny_wan, tmp_path):
    student = backbone.network("random")
    backbone.save(student, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["image_encoder"] == ["transformers", "CLIPVisionModel"]
    again = make_backbone(zoo, weights=str(tmp_path))
    x, t, condition = noise(backbone), torch.tensor([0.3, 0.9]), condition_of(backbone)
    with torch.no_grad():
        wanted = student(x, t, condition)
        assert torch.equal(again.network("teacher")(x, t, condition_of(again)), wanted)
        assert torch.equal(backbone.load(tmp_path)(x, t, condition), wanted)


def test_every_part_of_the_condition_counts(zoo, tiny_wan):
    for name, beside in (("wan", {}), ("self-forcing", {"block_frames": 1})):
        backbone = make_backbone(zoo, name, beside, weights=str(tiny_wan))
        network = backbone.network("student")
        x, t = noise(backbone), torch.tensor([0.3, 0.9])
        condition, other = condition_of(backbone), condition_of(backbone, (2, 3))
        with torch.no_grad():
            plain = network(x, t, condition)
            for part in ("channels", "image"):
                changed = network(x, t, {**condition, part: other[part]})
                assert (changed - plain).abs().max() > 1e-3, (name, part)


def test_a_causal_network_of_one_block_is_the_bidirectional_one(zoo, backbone, tiny_wan):
    causal = make_backbone(zoo, "self-forcing", {"block_frames": 3}, weights=str(tiny_wan))
    x, t, condition = noise(backbone), torch.tensor([0.3, 0.9]), condition_of(backbone)
    network = causal.network("student")
    with torch.no_grad():
        wanted = backbone.network("teacher")(x, t, condition)
        torch.testing.assert_close(network(x, t, condition), wanted, atol=1e-5, rtol=1e-5)
        memory = network.new_memory(x)
        for _ in range(2):  # the second one reads the keys and values that the first has kept
            found = network(x, t, condition, memory)
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_blocks_of_a_memory_are_those_of_masked_passes(zoo, tiny_wan):
    """Each block has its own frames of the condition, also behind a clean copy."""
    backbone = make_backbone(zoo, "self-forcing", {"block_frames": 1}, weights=str(tiny_wan))
    network = backbone.network("student")
    x, x0, t = noise(backbone), noise(backbone).flip(0), torch.tensor([0.3, 0.9])
    condition, clean = condition_of(backbone), torch.zeros(2)

    with torch.no_grad():
        torch.testing.assert_close(
            block_by_block(network, x, t, condition, x, t),
            network(x, t, condition),
            atol=1e-5,
            rtol=1e-5,
        )
        masked = network.forward_masked(x, t, x0, condition)
        torch.testing.assert_close(
            block_by_block(network, x, t, condition, x0, clean), masked, atol=1e-5, rtol=1e-5
        )


def test_a_new_prompt_remembers_blocks_anew_with_their_own_frames(zoo, tiny_wan):
    """The window's cache after a switch is the cache of a video of the new prompt alone."""
    beside = {"block_frames": 1, "memory": {"name": "window", "frames": 3, "sink": 0}}
    backbone = make_backbone(zoo, "self-forcing", beside, weights=str(tiny_wan))
    network = backbone.network("student")
    old = condition_of(backbone)
    new = {**old, "text": old["text"].flip(0)}
    x, clean = noise(backbone), torch.zeros(2)
    blocks = [x[:, :, k : k + 1] for k in range(2)]

    def remember(condition):
        memory = network.new_memory(x)
        for block in blocks:
            network.update_cache(block, clean, condition, memory)
        return memory

    memory, wanted = remember(old), remember(new)
    assert memory.distance(wanted).max() > 1e-3
    memory.switch(blocks, lambda block: network.update_cache(block, clean, new, memory))
    assert memory.distance(wanted).max() == 0 and memory.frame == wanted.frame == 2


def test_a_stream_goes_on_beyond_the_condition(zoo, tiny_wan):
    """Its first frames are those of the video; the condition's last frame holds from there on."""
    beside = {"block_frames": 1, "memory": {"name": "window", "frames": 3, "sink": 1}}
    backbone = make_backbone(zoo, "self-forcing", beside, weights=str(tiny_wan))
    network, config = backbone.network("student"), SamplingConfig(steps=2)
    rng, images = KeyedRNG(3, rows=range(1)), of_image(backbone, make_image())
    given = network, backbone, PROMPTS[0], rng, config
    long = torch.cat([*stream(*given, blocks=5, first_frames=images)], dim=2)
    short = generate(network, backbone, PROMPTS[:1], rng, config, first_frames=images)
    assert long.shape[2] == 17 and long.isfinite().all()
    torch.testing.assert_close(long[:, :, :9], backbone.decode_video(short), atol=1e-4, rtol=1e-4)
    with pytest.raises(ZooError, match="generates from a first frame, and none was given"):
        stream(*given, blocks=5)


def test_gradient_checkpointing_changes_no_gradient(zoo, tiny_wan):
    backbone = make_backbone(zoo, "self-forcing", {"block_frames": 1}, weights=str(tiny_wan))
    network = backbone.network("student").requires_grad_(True)
    x, t, condition = noise(backbone), torch.tensor([0.3, 0.9]), condition_of(backbone)

    def gradients():
        loss = network(x, t, condition).square().mean()
        return torch.autograd.grad(loss, list(network.parameters()))

    plain = gradients()
    assert all(gradient.any() for gradient in plain)  # the image branch's among them
    network.enable_gradient_checkpointing()
    for first, second in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(first, second)


def test_guidance_keeps_the_image(train, tmp_path):
    """In training as in sampling: a batch's unconditional half has the batch's own images."""
    run = {
        "method": {"name": "dmd", "steps": 2, "fake_score": {"updates": 1}},
        "backbone": {"name": "wan", "size": "test-small-i2v", "options": {"weights": None}},
        "training": {"updates": 1, "checkpoint_every": 1},
    }
    trainer = train(tmp_path / "run", load_zoo(["tests.sizes.plugin"]), **run)
    batch, _ = trainer._batches.get(next(trainer._batches.places(0)))
    for part in ("channels", "image"):
        assert torch.equal(batch.condition[part], batch.unconditional[part])
    nothing = unconditional(trainer.backbone, 2)["text"]
    assert torch.equal(batch.unconditional["text"], nothing)
    assert not torch.equal(batch.condition["text"], nothing)
    first, second = batch.condition["image"]
    assert not torch.equal(first, second)


@pytest.mark.parametrize("metric", ["semigroup-defect", "cache-distance"])
def test_metrics_walk_with_the_videos_own_images(metric):
    """A row is that of its video, whatever else is in a batch."""
    backbone = {"name": "self-forcing", "size": "test-small-i2v"}
    rows = check_metric(
        metric, "digits", load_zoo(["tests.sizes.plugin"]), backbone=backbone, prompts=2
    )
    assert rows.isfinite().all() and rows.unique().numel() == 2


def test_wans_own_names(tiny_wan, backbone, tmp_path):
    """Out under Wan's names of the image branch, and in again."""
    from salt_zoo_wan.checkpoint.export import export_transformer
    from salt_zoo_wan.checkpoint.load import load_transformer

    network = backbone.network("teacher")
    path = tmp_path / "wan.safetensors"
    export_transformer(network.transformer, path)
    names = safetensors.torch.load_file(path).keys()
    assert {"img_emb.proj.0.weight", "img_emb.proj.3.bias"} <= names
    assert {f"blocks.1.cross_attn.{n}.weight" for n in ("k_img", "v_img", "norm_k_img")} <= names
    loaded = load_transformer(path, TRANSFORMER).state_dict()
    for name, value in network.transformer.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_weights_of_the_other_kind(zoo, tiny_wan):
    with pytest.raises(ZooError, match="an image-to-video model, and "):
        content = {"size": "wan2.1-t2v-14b", "options": {**SHAPE, "weights": str(tiny_wan)}}
        zoo.backbones.create("wan", zoo.backbones.configure("wan", content, "test"), zoo)
    content = {"size": SIZE, "teacher": {"size": "wan2.1-t2v-14b"}}
    with pytest.raises(ZooError, match="generates from prompts alone, the stud"):
        zoo.backbones.create("wan", zoo.backbones.configure("wan", content, "test"), zoo)


def test_missing_parts_are_named(zoo, tiny_wan, tmp_path):
    for part in ("transformer", "vae", "text_encoder", "tokenizer"):
        (tmp_path / part).symlink_to(tiny_wan / part)
    (tmp_path / "model_index.json").write_text("{}")
    backbone = make_backbone(zoo, weights=str(tmp_path))
    with pytest.raises(ZooError, match="has no whole image_encoder"):
        backbone.encode_images(make_image()[None])


@pytest.mark.parametrize(
    ("size", "shape", "pixels"),
    [
        ("wan2.1-i2v-14b-480p", (16, 21, 60, 104), (3, 480, 832)),
        ("wan2.1-i2v-14b-720p", (16, 21, 90, 160), (3, 720, 1280)),
    ],
)
def test_the_full_sizes_without_their_weights(zoo, size, shape, pixels):
    """On the meta device: 16.39 B parameters, CLIP of 0.63 B, and a pass."""
    from salt_zoo.core.networks.condition import example

    backbone = zoo.backbones.create(
        "wan", zoo.backbones.configure("wan", {"size": size}, "test"), zoo
    ).to("meta")
    assert backbone.latent_shape == shape and backbone.image_shape == pixels
    with torch.device("meta"):
        network = backbone.network("random")
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(16.39e9, rel=1e-3)
    network.transformer.blocks = network.transformer.blocks[:2]  # all of 40 are alike
    v = network(torch.empty(1, *shape, device="meta"), torch.empty(1, device="meta"),
                example(backbone))  # fmt: skip
    assert v.shape == (1, *shape)
    parts = backbone.codec_modules()
    clip = sum(p.numel() for p in parts["image_encoder"].parameters())
    assert clip == pytest.approx(0.632e9, rel=1e-2)
    (download,) = backbone.downloads()
    assert download["source"].startswith("Wan-AI/Wan2.1-I2V-14B-")
    of_weights = 4 * (count + sum(p.numel() for m in parts.values() for p in m.parameters()))
    assert download["bytes"] == pytest.approx(of_weights, rel=0.01)
