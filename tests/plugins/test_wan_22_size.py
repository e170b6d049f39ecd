"""Wan 2.2's 5 B from text and from a first frame: a tiny Wan of its structure for 34 GB."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.first_frame import of_image
from salt_zoo.rollout.generate import SamplingConfig, generate
from tests.plugins.tiny_i2v import block_by_block
from tests.plugins.tiny_text import text_encoder

SIZE = "wan2.2-ti2v-5b"
SHAPE = {"height": 32, "width": 64, "frames": 9}
PROMPTS = ["a red fox", "waves"]
CHANNELS = 48


@pytest.fixture(scope="module")
def tiny_wan(tmp_path_factory):
    """A diffusers pipeline folder: a VAE of 16 x 16 x 4 with residual blocks, 48 channels."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import ByT5Tokenizer

    from salt_zoo_wan.published_configs import PUBLISHED

    published = PUBLISHED[SIZE]
    small = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 48, "num_layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = {
            **published.vae, "base_dim": 8, "decoder_base_dim": 8, "num_res_blocks": 1,
            "latents_mean": [k / 100 for k in range(CHANNELS)],
            "latents_std": [1 + k / 100 for k in range(CHANNELS)],
        }  # fmt: skip
        pipeline = WanPipeline(
            tokenizer=ByT5Tokenizer(),
            text_encoder=text_encoder(),
            vae=AutoencoderKLWan(**vae),
            scheduler=UniPCMultistepScheduler(),
            transformer=WanTransformer3DModel(
                **{**published.transformer, **small, "text_dim": 32, "freq_dim": 32}
            ),
            expand_timesteps=True,
        )
    folder = tmp_path_factory.mktemp("tiny") / "wan22"
    pipeline.save_pretrained(folder)
    return folder


def make_backbone(zoo, name="wan", **options):
    content = {"size": SIZE, "options": {**SHAPE, **options}}
    return zoo.backbones.create(name, zoo.backbones.configure(name, content, "test"), zoo)


@pytest.fixture
def backbone(zoo, tiny_wan):
    return make_backbone(zoo, weights=str(tiny_wan))


def noise(backbone, count=2):
    return KeyedRNG(3, rows=range(count)).randn(backbone.latent_shape, "initial noise")


def test_shapes_and_codecs(backbone):
    assert backbone.latent_shape == (CHANNELS, 3, 2, 4)
    assert (backbone.frame_rate, backbone.frame_size) == (24.0, (32, 64))
    pixels = backbone.decode_video(noise(backbone))
    assert pixels.shape == (2, 3, 9, 32, 64)
    assert backbone.encode_video(pixels).shape == (2, *backbone.latent_shape)


@pytest.mark.parametrize("sizes", [[3], [1, 2], [1, 1, 1]])
def test_blocks_are_decoded_as_the_whole_video(backbone, sizes):
    latents = noise(backbone)
    decoder = backbone.frame_decoder()
    parts = torch.cat([decoder(part) for part in latents.split(sizes, dim=2)], dim=2)
    whole = backbone.decode_video(latents)
    assert whole.std() > 0.01
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_a_stock_pipeline_samples_what_we_sample(backbone, tmp_path):
    from diffusers import WanPipeline

    student = backbone.network("student")
    backbone.save(student, tmp_path)
    pipeline = WanPipeline.from_pretrained(tmp_path)
    ours = generate(
        student,
        backbone,
        PROMPTS,
        KeyedRNG(3, rows=range(2)),
        SamplingConfig(steps=4, sampler="ode"),
    )
    options = {
        "num_inference_steps": 4, "guidance_scale": 1.0, "height": 32, "width": 64, "num_frames": 9,
        "latents": noise(backbone),
    }  # fmt: skip
    theirs = pipeline(PROMPTS, output_type="latent", **options).frames
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    pixels = torch.from_numpy(pipeline(PROMPTS, output_type="np", **options).frames)
    decoded = backbone.decode_video(ours).movedim(1, -1)
    torch.testing.assert_close(pixels, decoded, atol=1e-3, rtol=1e-3)
    readme = (tmp_path / "README.md").read_text()
    assert "height=32,\n    width=64,\n    num_frames=9," in readme and "fps=24)" in readme


def test_a_causal_student_generates(zoo, tiny_wan):
    backbone = make_backbone(zoo, "self-forcing", weights=str(tiny_wan))
    student = backbone.network("student")
    config = SamplingConfig(steps=2)
    made = generate(student, backbone, PROMPTS, KeyedRNG(3, rows=range(2)), config)
    assert made.shape == (2, *backbone.latent_shape) and made.isfinite().all()


def test_a_run_trains(train, tiny_wan, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"prompt {number}" for number in range(9)))
    trainer = train(
        tmp_path / "run",
        method="dmd",
        backbone={"name": "wan", "size": SIZE, "options": {**SHAPE, "weights": str(tiny_wan)}},
        dataset={"name": "prompts", "file": str(prompts), "held_out": 2},
        training={"updates": 1, "checkpoint_every": 1},
    )
    assert len(trainer.history) == 1 and trainer.history[0]["student/loss"] > 0


def test_the_full_size_without_its_weights(zoo):
    """On the meta device: 5.00 B parameters and a VAE of 0.70 B."""
    backbone = zoo.backbones.create(
        "wan", zoo.backbones.configure("wan", {"size": SIZE}, "test"), zoo
    ).to("meta")
    assert backbone.latent_shape == (CHANNELS, 31, 44, 80)
    assert backbone.pixel_frames(31) == 121
    with torch.device("meta"):
        network = backbone.network("random")
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(5.00e9, rel=1e-3)
    sizes = {k: sum(p.numel() for p in m.parameters()) for k, m in backbone.codec_modules().items()}
    assert sizes["vae"] == pytest.approx(0.705e9, rel=1e-3)
    (download,) = backbone.downloads()
    assert download["source"] == "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
    of_weights = 4 * sum(p.numel() for p in network.parameters())
    of_weights += sum(4 * sizes[part] for part in ("vae", "text_encoder"))
    assert download["bytes"] == pytest.approx(of_weights, rel=0.01)


@pytest.mark.parametrize("option", ["height", "width"])
def test_pixels_that_the_vae_and_the_patches_do_not_divide(zoo, option):
    with pytest.raises(ZooError, match=f"{option}: must be a multiple of 32"):
        make_backbone(zoo, **{option: 48})


def test_a_teacher_of_wan_21_has_other_latents(zoo):
    content = {"size": SIZE, "teacher": {"size": "wan2.1-t2v-14b"}}
    with pytest.raises(ZooError, match=r"backbone\.teacher: the latents"):
        zoo.backbones.create("wan", zoo.backbones.configure("wan", content, "test"), zoo)


def test_a_stock_pipeline_goes_on_from_an_image_as_we_do(zoo, tiny_wan, tmp_path):
    """The first frame's latents are the image's at every step, at a time of 0, and at the end."""
    from diffusers import WanImageToVideoPipeline

    backbone = make_backbone(zoo, weights=str(tiny_wan), from_image=True, negative_prompt="dull")
    student = backbone.network("student")
    backbone.save(student, tmp_path)
    pipe = WanImageToVideoPipeline.from_pretrained(tmp_path)
    assert pipe.config.expand_timesteps
    image = make_image()
    pil = PIL.Image.fromarray(np.asarray((image * 255).round().byte().permute(1, 2, 0)))
    for scale in (1.0, 4.0):
        config = SamplingConfig(steps=4, sampler="ode", guidance_scale=scale)
        ours = generate(
            student, backbone, PROMPTS[:1], KeyedRNG(3, rows=range(1)), config,
            first_frames=of_image(backbone, image),
        )  # fmt: skip
        theirs = pipe(
            pil, PROMPTS[0], negative_prompt="dull", num_inference_steps=4, height=32, width=64,
            num_frames=9, guidance_scale=scale, latents=noise(backbone, 1), output_type="latent",
        ).frames  # fmt: skip
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
        first = backbone.encode_images(image[None])["first"]
        torch.testing.assert_close(ours[:, :, :1], first, atol=1e-5, rtol=1e-5)


def test_a_causal_student_goes_on_from_an_image(zoo, tiny_wan):
    """The first block's first frame is given, in masked passes and in those with a memory."""
    options = {"weights": str(tiny_wan), "from_image": True}
    content = {"size": SIZE, "options": {**SHAPE, **options}, "block_frames": 1}
    name = "self-forcing"
    backbone = zoo.backbones.create(name, zoo.backbones.configure(name, content, "test"), zoo)
    network, x, t = backbone.network("student"), noise(backbone), torch.tensor([0.3, 0.9])
    images = torch.stack([make_image(0), make_image(1)])
    condition = {**backbone.encode_prompts(PROMPTS), **backbone.encode_images(images)}
    first, clean = condition["first"], torch.zeros(2)

    with torch.no_grad():
        whole = network(x, t, condition)
        torch.testing.assert_close(
            block_by_block(network, x, t, condition, x, t), whole, atol=1e-5, rtol=1e-5
        )
        masked = network.forward_masked(x, t, noise(backbone).flip(0), condition)
        walked = block_by_block(network, x, t, condition, noise(backbone).flip(0), clean)
        torch.testing.assert_close(walked, masked, atol=1e-5, rtol=1e-5)
    for v in (whole, masked):
        estimate = (x - t.view(2, 1, 1, 1, 1) * v)[:, :, :1]
        torch.testing.assert_close(estimate, first, atol=1e-5, rtol=1e-5)
    with torch.no_grad():  # a clean pass has no velocity there
        assert not network(x, clean, condition)[:, :, 0].any()


def make_image(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(3, 32, 64, generator=generator) * 255).round() / 255
