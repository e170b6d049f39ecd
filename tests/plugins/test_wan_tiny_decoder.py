"""The tiny decoder: TAEHV's arithmetic, decoding block by block, wrong files, a real stream.

The published files are not here: these have their names and shapes, at other widths.
"""

from __future__ import annotations

import av
import pytest
import safetensors.torch
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch.nn import functional

from salt_zoo.core.base.errors import ZooError
from salt_zoo.rollout.generate import SamplingConfig, generate, prompt_draws
from salt_zoo.rollout.stream import stream
from salt_zoo_wan.encoders.tiny_decoder import TinyFrameDecoder, read_tiny_decoder
from salt_zoo_wan.published_configs import PUBLISHED
from tests.plugins.test_wan_published_sizes import make_backbone, tiny_wan  # noqa: F401

SIZE = "wan2.1-t2v-1.3b"
SHAPE = {"height": 32, "width": 48, "frames": 9}
#: The published widths, and narrow ones.
WIDE, NARROW = (256, 128, 64, 64), (12, 8, 6, 4)
PROMPT = "a red fox"


def shapes(channels=16, widths=NARROW, patch=1):
    """Names and shapes of the decoders that are published, as their code lists them."""
    first, second, third, last = widths
    found = {"decoder.1.weight": (first, channels, 3, 3), "decoder.1.bias": (first,)}
    for places, width in (((3, 4, 5), first), ((9, 10, 11), second), ((15, 16, 17), third)):
        for place in places:
            for layer, inputs in ((0, 2 * width), (2, width), (4, width)):
                found[f"decoder.{place}.conv.{layer}.weight"] = (width, inputs, 3, 3)
                found[f"decoder.{place}.conv.{layer}.bias"] = (width,)
    for place, width, frames in ((7, first, 1), (13, second, 2), (19, third, 2)):
        found[f"decoder.{place}.conv.weight"] = (frames * width, width, 1, 1)
    for place, width, after in ((8, first, second), (14, second, third), (20, third, last)):
        found[f"decoder.{place}.weight"] = (after, width, 3, 3)
    colours = 3 * patch**2
    return found | {"decoder.22.weight": (colours, last, 3, 3), "decoder.22.bias": (colours,)}


def weights(seed=0, **options):
    """Halves, with an encoder beside the decoder, as in the published files."""
    draw = torch.Generator().manual_seed(seed)
    found = {"encoder.0.weight": torch.zeros(1, dtype=torch.half)}
    for name, shape in shapes(**options).items():
        spread = 0.3 if len(shape) == 1 else (1 / (shape[1] * shape[2] * shape[3])) ** 0.5
        found[name] = (spread * torch.randn(shape, generator=draw)).half()
    return found


@pytest.fixture
def save(tmp_path):
    def write(name="taew2_1.pth", content=None, **options):
        path, content = tmp_path / name, weights(**options) if content is None else content
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(content, path)
        else:
            torch.save(content, path)
        return path

    return write


@pytest.fixture
def latents():
    return torch.randn(2, 16, 5, 3, 4, generator=torch.Generator().manual_seed(1))


def reference(w, z, patch=1):
    """All frames at once, layer by layer: `z` `[f, C, h, w]` to `[4f, 3, H, W]`, from the names."""

    def conv(name, x):
        x = functional.pad(x, (1, 1, 1, 1))
        return functional.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    x = conv("decoder.1", 3 * torch.tanh(z / 3)).relu()
    for stage, factor in ((3, 1), (9, 2), (15, 2)):
        for place in range(stage, stage + 3):
            past = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
            y = conv(f"decoder.{place}.conv.0", torch.cat([x, past], 1)).relu()
            y = conv(f"decoder.{place}.conv.2", y).relu()
            x = (conv(f"decoder.{place}.conv.4", y) + x).relu()
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        grown = torch.einsum("oc,fchw->fohw", w[f"decoder.{stage + 4}.conv.weight"][..., 0, 0], x)
        x = torch.stack(grown.chunk(factor, 1), 1).flatten(0, 1)
        x = conv(f"decoder.{stage + 5}", x)
    x = conv("decoder.22", x.relu())
    frames, _, height, width = x.shape
    x = x.view(frames, 3, patch, patch, height, width).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(frames, 3, patch * height, patch * width).clamp(0, 1)


@pytest.mark.parametrize(("channels", "patch"), [(16, 1), (48, 2)])
def test_it_computes_what_its_authors_define(channels, patch, save):
    path = save(channels=channels, patch=patch)
    decoder = read_tiny_decoder(path, channels, 8 * patch).double()
    z = torch.randn(1, channels, 3, 2, 3, generator=torch.Generator().manual_seed(2)).double()
    pixels = TinyFrameDecoder(decoder)(z)
    exact = {
        name: tensor.double() for name, tensor in weights(channels=channels, patch=patch).items()
    }
    whole = reference(exact, z[0].transpose(0, 1), patch).transpose(0, 1)[None]
    assert pixels.shape == (1, 3, 9, 16 * patch, 24 * patch)
    inside = (pixels > 0) & (pixels < 1)
    assert inside.float().mean() > 0.2 and pixels[inside].std() > 0.1
    torch.testing.assert_close(pixels, whole[:, :, 3:], rtol=1e-12, atol=1e-12)


def test_the_published_widths_load(save):
    decoder = read_tiny_decoder(save(widths=WIDE), 16, 8)
    found = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    assert found == shapes(widths=WIDE) and len(found) == 64
    assert all(tensor.dtype == torch.float32 for tensor in decoder.state_dict().values())


@pytest.mark.parametrize("sizes", [[5], [1, 4], [3, 2], [1] * 5])
def test_blocks_are_bitwise_the_whole(sizes, save, latents):
    decoder = read_tiny_decoder(save(), 16, 8)
    whole, parts = TinyFrameDecoder(decoder)(latents), TinyFrameDecoder(decoder)
    assert whole.shape == (2, 3, 17, 24, 32)
    made = [parts(part) for part in latents.split(sizes, dim=2)]
    assert [part.shape[2] for part in made] == [4 * n - 3 * (i == 0) for i, n in enumerate(sizes)]
    assert torch.equal(torch.cat(made, dim=2), whole)
    alone = TinyFrameDecoder(decoder)(latents[:, :, 3:])
    assert not torch.allclose(alone[:, :, -4:], whole[:, :, -4:], atol=1e-3)  # the past matters
    with pytest.raises(ValueError, match="2 videos were begun, not 1"):
        parts(latents[:1])


def wan(zoo, place, name="self-forcing", **options):
    content = {"size": SIZE, "options": {**SHAPE, "weights": str(place), **options}}
    content |= {"block_frames": 1} if name == "self-forcing" else {}
    return zoo.backbones.create(name, zoo.backbones.configure(name, content, "test"), zoo)


@pytest.fixture
def no_vae(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the VAE was loaded")

    monkeypatch.setattr(AutoencoderKLWan, "from_pretrained", refuse)


def test_a_stream_is_bitwise_the_video_and_loads_no_vae(zoo, tiny_wan, save, no_vae):  # noqa: F811
    backbone = wan(zoo, tiny_wan, tiny_decoder=str(save()))
    network, config = backbone.network("student").eval(), SamplingConfig(steps=1)
    with torch.inference_mode():
        draws = prompt_draws(0, PROMPT, range(1))
        video = generate(network, backbone, [PROMPT], draws, config)
        offline = backbone.decode_video(video)
    draws = prompt_draws(0, PROMPT, range(1))
    parts = list(stream(network, backbone, PROMPT, draws, config, blocks=3))
    assert [part.shape[2] for part in parts] == [1, 4, 4]
    assert torch.equal(torch.cat(parts, dim=2), offline)
    assert offline.shape == (1, 3, 9, 32, 48) and offline.min() >= 0 and offline.max() <= 1


def test_the_command_streams_with_it(cli, tiny_wan, save, no_vae, tmp_path):  # noqa: F811
    options = {**SHAPE, "weights": tiny_wan, "tiny_decoder": save()}
    sets = [f"backbone.options.{name}={value}" for name, value in options.items()]
    words = [word for text in sets for word in ("--set", text)]
    out = tmp_path / "a.mp4"
    ended = cli(
        "stream", PROMPT, "--backbone", "self-forcing", "--size", SIZE, "--memory", "window",
        "--set", "backbone.memory.frames=6", "--frames", 21, "--switch", "12:waves", "--nfe", 1,
        "--out", out, *words,
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    with av.open(str(out)) as container:
        assert len([*container.decode(video=0)]) == 21


def test_the_vae_still_encodes_and_a_digest_tells_which_decoder(zoo, tiny_wan, save):  # noqa: F811
    plain = make_backbone(zoo, weights=str(tiny_wan))
    tiny = make_backbone(zoo, weights=str(tiny_wan), tiny_decoder=str(save()))
    video = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(0))
    latents = plain.encode_video(video)
    assert torch.equal(tiny.encode_video(video), latents)
    assert not torch.allclose(tiny.decode_video(latents), plain.decode_video(latents), atol=0.01)
    assert tiny.fingerprint().keys() - plain.fingerprint().keys() == {"tiny_decoder/taew2_1.pth"}
    assert tiny.encoder("video") == plain.encoder("video")
    planned = tiny.codec_modules()
    assert all(p.is_meta for p in planned["tiny_decoder"].parameters())
    assert tiny.codecs_of("video") == ("vae", "tiny_decoder")
    assert plain.codecs_of("video") == ("vae",) and "tiny_decoder" not in plain.codec_modules()
    before = tiny.fingerprint()
    save(seed=1)
    assert tiny.fingerprint() != before


def test_a_decoder_of_lightx2v_takes_the_scale_of_the_vae(zoo, tiny_wan, save, no_vae, latents):  # noqa: F811
    plain, light = (
        wan(zoo, tiny_wan, "wan", tiny_decoder=str(save(name)))
        for name in ("taew2_1.safetensors", "lighttaew2_1.safetensors")
    )
    config = AutoencoderKLWan.load_config(tiny_wan / "vae")
    mean, deviation = (
        torch.tensor(config[key]).view(1, 16, 1, 1, 1) for key in ("latents_mean", "latents_std")
    )
    assert torch.equal(light.decode_video(latents), plain.decode_video(latents * deviation + mean))
    assert not torch.equal(light.decode_video(latents), plain.decode_video(latents))


@pytest.mark.parametrize("name", ["taew2_1.safetensors", "lighttaew2_1.safetensors"])
def test_random_weights_are_timed_with_it(name, zoo, save, no_vae):
    """Nothing else than its file is read."""
    from benchmarks.perf_suite.setup import make_subjects

    small = {"num_layers": 1, "num_attention_heads": 1, "ffn_dim": 8}
    options = {**SHAPE, "tiny_decoder": save(name)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in small.items():
            patch.setitem(PUBLISHED[SIZE].transformer, name, value)
        (subject,), _ = make_subjects(
            zoo, SIZE, ["window"], [f"backbone.options.{k}={v}" for k, v in options.items()],
            batch=1, device=torch.device("cpu"), random=True,
        )  # fmt: skip
    decode = subject.decoder()
    assert isinstance(decode, TinyFrameDecoder)
    assert decode(torch.zeros(1, 16, 3, 4, 6)).shape == (1, 3, 9, 32, 48)


def changed(**changes):
    content = weights()
    for name, tensor in changes.items():
        content[name] = tensor
    return {name: tensor for name, tensor in content.items() if tensor is not None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (weights(channels=48, patch=2), "latents of 48 channels, and those of this size have 16"),
        (changed(**{"decoder.4.conv.2.bias": None}), "it has no 'decoder.4.conv.2.bias'"),
        (changed(**{"decoder.1.weight": None}), "it has no convolution 'decoder.1.weight'"),
        (changed(**{"decoder.23.weight": torch.zeros(1)}), "it has 'decoder.23.weight', too"),
        (changed(**{"quant_conv.weight": torch.zeros(1)}), "it has 'quant_conv.weight', too"),
        (changed(**{"decoder.7.conv.weight": torch.zeros(24, 12, 1, 1)}),
         r"its 'decoder.7.conv.weight' is \[24, 12, 1, 1\], and \[12, 12, 1, 1\] is needed"),
        (weights(patch=2), r"its 'decoder.22.bias' is \[12\], and \[3\] is needed"),
        ({"state_dict": weights()}, "it has 'state_dict'"),
        ({"decoder.1.weight": torch.zeros(2, 16, 3, 3, dtype=torch.int8)}, "'decoder.1.weight'"),
        (changed(**{"decoder.1.weight": torch.full((2, 16, 3, 3), torch.nan)}), "are not finite"),
        (changed(**{"decoder.1.weight": torch.eye(3).to_sparse()}), "holds no plain numbers"),
        (changed(**{"decoder.1.weight": torch.zeros(2, device="meta")}), "holds no plain numbers"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(content, words, zoo, tiny_wan, save):  # noqa: F811
    path = save(content=content)
    with pytest.raises(ZooError, match=words) as error:
        make_backbone(zoo, weights=str(tiny_wan), tiny_decoder=str(path))
    text = str(error.value)
    assert text.startswith(f"backbone.options.tiny_decoder: {path}: ") and "\n" not in text
    assert "taew2_1 is for Wan 2.1" in text


def test_a_missing_or_damaged_file_is_one_line(zoo, tmp_path):
    damaged = tmp_path / "taew2_1.pth"
    damaged.write_bytes(b"PK\x03\x04" + bytes(100))
    for path, words in ((tmp_path / "none.pth", "no such file"), (damaged, "corrupt weights")):
        with pytest.raises(ZooError, match=words) as error:
            make_backbone(zoo, tiny_decoder=str(path))
        text = str(error.value)
        assert text.startswith(f"backbone.options.tiny_decoder: {path}: ") and "\n" not in text


def test_digits_have_no_latents_to_decode(cli, save, tmp_path):
    ended = cli(
        "stream", "a 7 moving up-left slowly", "--backbone", "self-forcing", "--size", "digits",
        "--frames", 5, "--out", tmp_path / "a.mp4",
        "--set", f"backbone.options.tiny_decoder={save()}",
    )  # fmt: skip
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert "tiny_decoder" in ended.err and not (tmp_path / "a.mp4").exists()
