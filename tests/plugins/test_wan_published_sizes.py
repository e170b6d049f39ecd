"""The published sizes, with a tiny Wan of their structure in place of 29 GB."""

import json
import math
import socket

import pytest
import torch

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo_wan.components import is_complete

TRANSFORMER = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 48,
    "num_layers": 2,
    "cross_attn_norm": True,
}
SIZE = {"height": 32, "width": 48, "frames": 9}
PROMPTS = ["a red  fox &amp; a crow", "waves"]


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory):
    """A diffusers pipeline folder with Wan's structure and random weights, about 2 MB."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    text = UMT5Config(
        vocab_size=384,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        is_encoder_decoder=False,
    )
    pipeline = WanPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=UMT5EncoderModel(text).eval(),
        vae=AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=UniPCMultistepScheduler(),
        transformer=WanTransformer3DModel(**TRANSFORMER),
    )
    folder = tmp_path_factory.mktemp("tiny") / "wan"
    pipeline.save_pretrained(folder)
    return folder


def make_backbone(zoo, **options):
    config = zoo.backbones.configure(
        "wan", {"size": "wan2.1-t2v-1.3b", "options": {**SIZE, **options}}, "test"
    )
    return zoo.backbones.create("wan", config, zoo)


@pytest.fixture
def backbone(zoo, tiny_wan):
    return make_backbone(zoo, weights=str(tiny_wan))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def noise(backbone, count=2):
    return KeyedRNG(3, rows=range(count)).randn(backbone.latent_shape, "initial noise")


def test_shapes_and_codecs(backbone):
    assert backbone.latent_shape == (16, 3, 4, 6)
    assert backbone.frame_rate == 16
    latents = noise(backbone)
    pixels = backbone.decode_video(latents)
    assert pixels.shape == (2, 3, 9, 32, 48)
    assert pixels.min() >= 0 and pixels.max() <= 1
    assert backbone.encode_video(pixels).shape == latents.shape
    assert torch.equal(backbone.encode_video(latents), latents)  # latents are latents already


def test_latents_are_normalised_as_the_stock_pipeline_does(backbone, tiny_wan):
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan.from_pretrained(tiny_wan / "vae")
    video = torch.rand(1, 3, 9, 32, 48)
    with torch.no_grad():
        raw = vae.encode(video * 2 - 1).latent_dist.mode()
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    deviation = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(backbone.encode_video(video), (raw - mean) / deviation)


def test_prompts_are_encoded_as_the_stock_pipeline_does(backbone, tiny_wan):
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(tiny_wan)
    ours = backbone.encode_prompts([*PROMPTS, ""])["text"]
    theirs = pipeline._get_t5_prompt_embeds([*PROMPTS, ""], max_sequence_length=512)
    assert ours.shape == (3, 512, 32)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[1, 6:], torch.zeros(506, 32))  # five letters and the end


def test_encoded_prompts_are_kept(zoo, tiny_wan, tmp_path, monkeypatch):
    from salt_zoo_wan.encoders.text_encoder import TextEncoder

    options = {"weights": str(tiny_wan), "text_cache": str(tmp_path / "text")}
    first = make_backbone(zoo, **options).encode_prompts(PROMPTS)["text"]
    monkeypatch.setattr(TextEncoder, "_load", lambda *args: pytest.fail("it was loaded again"))
    again = make_backbone(zoo, **options).encode_prompts([PROMPTS[1], PROMPTS[0]])["text"]
    assert torch.equal(again.flip(0), first)
    with pytest.raises(pytest.fail.Exception):
        make_backbone(zoo, **options).encode_prompts(["another"])


def test_a_stock_pipeline_samples_what_we_sample(backbone, tmp_path):
    from diffusers import WanPipeline

    student = backbone.network("student")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    backbone.save(student, tmp_path)
    pipeline = WanPipeline.from_pretrained(tmp_path)
    for steps in (1, 2, 4, 8):
        config = SamplingConfig(steps=steps, sampler="ode")
        ours = generate(student, backbone, PROMPTS, KeyedRNG(3, rows=range(2)), config)
        theirs = pipeline(
            PROMPTS,
            num_inference_steps=steps,
            guidance_scale=1.0,
            height=32,
            width=48,
            num_frames=9,
            latents=noise(backbone),
            output_type="latent",
        ).frames
        assert theirs.shape == (2, *backbone.latent_shape)
        torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    pixels = torch.from_numpy(
        pipeline(
            PROMPTS[0],
            num_inference_steps=4,
            guidance_scale=1.0,
            height=32,
            width=48,
            num_frames=9,
            latents=noise(backbone)[:1],
            output_type="np",
        ).frames
    )
    mine = generate(student, backbone, PROMPTS[:1], KeyedRNG(3, rows=range(1)), config_ode(4))
    decoded = backbone.decode_video(mine).movedim(1, -1)
    torch.testing.assert_close(pixels, decoded, atol=1e-3, rtol=1e-3)


def config_ode(steps):
    return SamplingConfig(steps=steps, sampler="ode")


def test_the_saved_readme_is_right_about_the_sde_form(backbone, tmp_path):
    """Its code block, run: the times are our step list, and each step noises the estimate anew."""
    from diffusers import WanPipeline

    from salt_zoo.core.flow import step_list

    backbone.save(backbone.network("teacher"), tmp_path)
    pipe = WanPipeline.from_pretrained(tmp_path)
    readme = (tmp_path / "README.md").read_text()
    exec(readme.split("```python")[2].split("```")[0], {"pipe": pipe})
    pipe.scheduler.set_timesteps(4, device="cpu")
    times = [1000 * t for t in step_list(4, 5.0)]
    torch.testing.assert_close(pipe.scheduler.timesteps, torch.tensor(times))
    x, v = torch.randn(2, 1, 3, 4, 4)
    torch.manual_seed(5)
    stepped = pipe.scheduler.step(v, pipe.scheduler.timesteps[0], x, return_dict=False)[0]
    torch.manual_seed(5)
    torch.testing.assert_close(stepped, (1 - 0.9375) * (x - v) + 0.9375 * torch.randn_like(x))


def test_a_saved_student_comes_back_bitwise(backbone, tmp_path, zoo, tiny_wan):
    student = backbone.network("random")
    backbone.save(student, tmp_path / "a")
    loaded = backbone.load(tmp_path / "a")
    x, t = noise(backbone), torch.tensor([0.3, 0.9])
    condition = backbone.encode_prompts(PROMPTS)
    with torch.no_grad():
        assert torch.equal(loaded(x, t, condition), student(x, t, condition))
    for name, value in student.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    source, copy = (f / "text_encoder" / "model.safetensors" for f in (tiny_wan, tmp_path / "a"))
    assert copy.samefile(source)  # linked, not copied
    # a saved student is itself a teacher, with all its codecs or by its transformer alone
    for weights in (tmp_path / "a", tmp_path / "a" / "transformer"):
        again = make_backbone(zoo, weights=str(weights), codecs=str(tiny_wan))
        with torch.no_grad():
            assert torch.equal(again.network("teacher")(x, t, condition), student(x, t, condition))


def test_the_digits_are_saved_as_a_transformer_only(zoo, tmp_path):
    config = zoo.backbones.configure("wan", {}, "test")
    digits = zoo.backbones.create("wan", config, zoo)
    student = digits.network("random")
    digits.save(student, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["transformer"]
    loaded = digits.load(tmp_path)
    x, condition = noise(digits), digits.encode_prompts(["a 7 moving up slowly"] * 2)
    with torch.no_grad():
        assert torch.equal(
            loaded(x, torch.ones(2), condition), student(x, torch.ones(2), condition)
        )


def test_gradient_checkpointing_changes_no_gradient(backbone):
    network = backbone.network("teacher").requires_grad_(True)
    x, t, condition = noise(backbone), torch.tensor([0.3, 0.9]), backbone.encode_prompts(PROMPTS)

    def gradients():
        loss = network(x, t, condition).square().mean()
        return torch.autograd.grad(loss, list(network.parameters()))

    plain = gradients()
    network.enable_gradient_checkpointing()
    for first, second in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(first, second)


def test_times_per_frame(backbone):
    network = backbone.network("teacher")
    x, condition = noise(backbone), backbone.encode_prompts(PROMPTS)
    with torch.no_grad():
        one = network(x, torch.tensor([0.3, 0.9]), condition)
        each = network(x, torch.tensor([[0.3] * 3, [0.9] * 3]), condition)
        mixed = network(x, torch.tensor([[0.0, 0.3, 0.9]] * 2), condition)
    torch.testing.assert_close(one, each, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(one, mixed, atol=1e-2)


def test_fingerprint(zoo, backbone, tiny_wan, tmp_path):
    found = backbone.fingerprint()
    assert any(key.startswith("transformer/") for key in found)
    assert any(key.startswith("vae/") for key in found)
    backbone.save(backbone.network("random"), tmp_path)
    other = make_backbone(zoo, weights=str(tmp_path)).fingerprint()
    different = {key for key in found if found[key] != other[key]}
    assert different == {"transformer/diffusion_pytorch_model.safetensors"}


def test_nothing_is_fetched_before_it_is_asked_for(zoo, no_network, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = make_backbone(zoo)
    backbone.fingerprint()
    assert backbone.blocks().frames is None
    (download,) = backbone.downloads()
    assert download["source"] == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    assert download["bytes"] == pytest.approx(28.9e9, rel=0.01)
    assert download["command"].startswith("hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --include")
    for attempt in (
        lambda: backbone.network("teacher"),
        lambda: backbone.encode_prompts(["x"]),
        lambda: backbone.decode_video(noise(backbone)),
    ):
        with pytest.raises(ZooError) as error:
            attempt()
        text = str(error.value)
        assert "\n" not in text
        assert "GB" in text and "hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers" in text


def test_the_full_size_without_its_weights(zoo):
    """On the meta device: the published parameter counts, to the last one of the transformer."""
    backbone = make_backbone(zoo, height=480, width=832, frames=81).to("meta")
    assert backbone.latent_shape == (16, 21, 60, 104)
    with torch.device("meta"):
        network = backbone.network("random")
    assert sum(p.numel() for p in network.parameters()) == 1_418_996_800
    network.transformer.blocks = network.transformer.blocks[:2]  # all of 30 are alike
    x = torch.empty(1, 16, 3, 8, 8, device="meta")
    condition = backbone.encode_prompts(["anything"])
    v = network(x, torch.empty(1, device="meta"), condition)
    assert v.shape == x.shape
    sizes = {k: sum(p.numel() for p in m.parameters()) for k, m in backbone.codec_modules().items()}
    assert sizes["text_encoder"] == pytest.approx(5.68e9, rel=0.01)
    assert sizes["vae"] == pytest.approx(1.27e8, rel=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "no/where/there"}, "no such file or folder"),
        ({"weights": "missing.safetensors"}, "no such file"),
        ({"height": 100}, "multiple of 16"),
        ({"frames": 80}, "multiple of 4"),
        ({"weihgts": "x"}, "did you mean 'weights'"),
    ],
)
def test_wrong_options(zoo, options, words):
    with pytest.raises(ZooError, match=words) as error:
        make_backbone(zoo, **options)
    assert "\n" not in str(error.value)


def test_damaged_parts(zoo, backbone, tmp_path):
    backbone.save(backbone.network("teacher"), tmp_path)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    damaged = make_backbone(zoo, weights=str(tmp_path))
    with pytest.raises(ZooError, match="incomplete or corrupt"):
        damaged.network("teacher")
    with pytest.raises(ZooError, match="incomplete or corrupt"):
        backbone.load(tmp_path)
    weights.unlink()
    with pytest.raises(ZooError, match="has no whole transformer"):
        make_backbone(zoo, weights=str(tmp_path)).network("teacher")


def test_a_student_is_saved_even_where_codecs_are_missing(zoo, tiny_wan, tmp_path, no_network):
    backbone = make_backbone(zoo, weights=str(tiny_wan / "transformer"), codecs="nobody/has-this")
    backbone.save(backbone.network("teacher"), tmp_path)
    assert not (tmp_path / "model_index.json").exists()
    assert "Not a whole pipeline" in (tmp_path / "README.md").read_text()
    assert math.isfinite(
        backbone.load(tmp_path)(noise(backbone), torch.ones(2), {"text": torch.zeros(2, 4, 32)})
        .sum()
        .item()
    )


def test_model_index_names_the_stock_classes(backbone, tmp_path):
    backbone.save(backbone.network("teacher"), tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline"
    assert index["tokenizer"] == ["transformers", "ByT5Tokenizer"]


def test_a_diffusers_without_the_flow_map_scheduler(backbone, tmp_path, monkeypatch):
    from diffusers import WanPipeline

    monkeypatch.setattr("salt_zoo_wan.pipeline._FLOW_MAP", "NoSuchScheduler")
    backbone.save(backbone.network("teacher"), tmp_path)
    pipeline = WanPipeline.from_pretrained(tmp_path)
    assert type(pipeline.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert "must be given the student's times" in (tmp_path / "README.md").read_text()


def test_a_training_encodes_its_prompts_in_one_go(train, tiny_wan, tmp_path, monkeypatch):
    """11 GB travel to the GPU and back each time; and the encodings are a later run's, too."""
    from salt_zoo_wan.encoders.text_encoder import TextEncoder

    encoded = []
    encode = TextEncoder._encode

    def spy(self, prompts, *arguments):
        encoded.append(list(prompts))
        encode(self, prompts, *arguments)

    monkeypatch.setattr(TextEncoder, "_encode", spy)
    options = {**SIZE, "weights": str(tiny_wan), "text_cache": str(tmp_path / "text")}
    run = {
        "method": {"name": "dmd", "steps": 2, "fake_score": {"updates": 2}},
        "backbone": {"name": "wan", "size": "wan2.1-t2v-1.3b", "options": options},
        "dataset": {"name": "prompts"},
        "training": {"updates": 3, "batch_size": 2},
        "execution": {"micro_batch": 1},
    }
    first = train(tmp_path / "first", **run)
    assert len(encoded) == 1 and len(set(encoded[0])) == len(encoded[0]) > 6
    assert {first.backbone.negative_prompt, ""} < set(encoded[0])
    train(tmp_path / "again", **run)
    assert len(encoded) == 1


@pytest.mark.parametrize(
    "content", ["[" * 10**5, "[]", "{}", "\xff"], ids=["deep", "list", "empty", "bytes"]
)
def test_a_damaged_index_of_shards_is_named(content, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ZooError, match=r"model.index.json: damaged \(.*\); download it again"):
        is_complete(tmp_path, "transformer")
