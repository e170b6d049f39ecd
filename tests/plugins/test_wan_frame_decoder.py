"""Decoding block by block is decoding the whole video."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from salt_zoo_wan.encoders.vae import VideoCodec
from salt_zoo_wan.published.published_size import PublishedSize


class LocalParts:
    """A VAE in a folder."""

    def __init__(self, path):
        self.path = path

    def folder(self, part):
        assert part == "vae"
        return self.path


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """A random VAE with Wan's structure: 8 times smaller, 4 frames in one after the first."""
    folder = tmp_path_factory.mktemp("vae")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLWan(base_dim=8, dim_mult=[1, 2, 2, 2], num_res_blocks=1)
        vae.save_pretrained(folder)
    return VideoCodec(LocalParts(folder))


@pytest.fixture(scope="module")
def latents():
    return torch.randn(2, 16, 7, 3, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def whole(codec, latents):
    return codec.decode(latents)


def decode(decoder, latents, sizes):
    return [decoder(part) for part in latents.split(sizes, dim=2)]


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1, 3, 3], [1] * 7, [2, 1, 4]])
def test_blocks_are_the_whole(sizes, codec, latents, whole):
    assert whole.shape == (2, 3, 25, 24, 32) and whole.std() > 0.01
    parts = decode(codec.frame_decoder("cpu"), latents, sizes)
    counts = [4 * size for size in sizes]
    counts[0] -= 3
    assert [part.shape[2] for part in parts] == counts
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=1e-5, atol=1e-6)


def test_the_past_matters(codec, latents, whole):
    """Otherwise the test above would show nothing."""
    alone = codec.frame_decoder("cpu")(latents[:, :, 3:])
    assert not torch.allclose(alone[:, :, 1:5], whole[:, :, 13:17], atol=1e-3)


def test_streams_and_whole_videos_do_not_disturb_each_other(codec, latents, whole):
    one, two = codec.frame_decoder("cpu"), codec.frame_decoder("cpu")
    parts = []
    for part in latents.split(1, dim=2):
        parts.append(one(part))
        two(torch.zeros_like(part))
        codec.decode(part)
        codec.encode(torch.zeros(1, 3, 5, 16, 16))
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=1e-5, atol=1e-6)


def test_the_videos_of_a_stream_stay_the_same(codec, latents):
    decoder = codec.frame_decoder("cpu")
    decoder(latents[:, :, :1])
    with pytest.raises(ValueError, match="2 videos were begun, not 1"):
        decoder(latents[:1, :, 1:])


@pytest.mark.parametrize("name", ["wan", "self-forcing"])
def test_the_backbones_offer_it(name, codec, latents, zoo, teacher):
    options = {"size": "digits", "options": {"weights": str(teacher)}}
    backbone = zoo.backbones.create(name, zoo.backbones.configure(name, options, "test"), zoo)
    pixels = latents[:, :1]  # digits have no VAE: every block by itself
    assert torch.equal(backbone.frame_decoder()(pixels), backbone.decode_video(pixels))
    assert backbone.pixel_frames(5) == 5

    backbone.size = size = PublishedSize.__new__(PublishedSize)
    size.video = codec
    whole = backbone.decode_video(latents)
    parts = torch.cat(decode(backbone.frame_decoder(), latents, [3, 4]), dim=2)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    assert [backbone.pixel_frames(n) for n in (0, 1, 2, 7)] == [0, 1, 5, 25]
