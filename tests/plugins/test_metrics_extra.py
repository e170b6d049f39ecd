"""Image quality and CLIP score: without their libraries one line, with them the plumbing.

No weights are downloaded: CLIP has random ones from a local file, PIQE needs none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import tests.torchvision_shim  # noqa: F401  before anything imports torchvision
from salt_zoo.config.metrics import make_metrics
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.evaluation.videos import Videos

#: The smallest of open_clip's that looks at 224 x 224 pixels.
SMALL_CLIP = "ViT-S-32-alt"


@pytest.fixture
def make(zoo):
    def make(name, **options):
        return zoo.metrics.create(name, zoo.metrics.configure(name, options, "test"), zoo)

    return make


def videos(pixels: torch.Tensor, prompts: list[str] | None = None) -> Videos:
    prompts = prompts or ["a cat"] * len(pixels)
    rng = KeyedRNG(0, (), range(len(pixels)))
    return Videos(pixels, prompts, rng, None)  # type: ignore[arg-type]


def textured(count: int, channels: int = 3, frames: int = 2) -> torch.Tensor:
    """Smooth noise `[count, channels, frames, 64, 96]`, each frame another."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count * frames, channels, 8, 12, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(64, 96), mode="bicubic")
    return fine.view(count, frames, channels, 64, 96).transpose(1, 2)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("image-quality", "pyiqa"),
        ("image-quality-piqe", "pyiqa"),
        ("clip-score", "open_clip"),
    ],
)
def test_without_the_extra_one_line_says_what_to_install(name, module, zoo, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(ZooError, match=rf"{module} is missing; pip install 'salt-zoo\[metrics\]'"):
        make_metrics(zoo, [name])


def test_a_library_that_cannot_be_imported_is_one_line(zoo, monkeypatch, tmp_path):
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "open_clip.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    with pytest.raises(ZooError, match=r"nms does not exist.*must fit together") as caught:
        make_metrics(zoo, ["clip-score"])
    assert "\n" not in str(caught.value)


@pytest.fixture
def pyiqa():
    return pytest.importorskip("pyiqa", reason="needs the extra `metrics`")


@pytest.fixture
def open_clip():
    return pytest.importorskip("open_clip", reason="needs the extra `metrics`")


@pytest.mark.metrics
class TestImageQuality:
    def test_piqe_is_pyiqas_mean_over_frames(self, pyiqa, make):
        pixels = textured(2)
        metric = make("image-quality-piqe", batch_size=1)
        rows = metric.measure(videos(pixels))
        model = pyiqa.create_metric("piqe", device="cpu")
        frames = (pixels.clamp(0, 1) * 255).round() / 255
        wanted = [
            torch.stack([model(video[:, f][None]).flatten()[0] for f in range(2)]).mean()
            for video in frames
        ]
        assert rows.tolist() == pytest.approx([float(w) for w in wanted], rel=1e-5)
        assert metric.direction == "lower" and rows[0] != rows[1]

    def test_grey_videos_score_like_grey_in_three_channels(self, pyiqa, make):
        grey = textured(1, channels=1)
        metric = make("image-quality-piqe")
        repeated = grey.repeat(1, 3, 1, 1, 1)
        assert torch.equal(metric.measure(videos(grey)), metric.measure(videos(repeated)))

    def test_broken_videos_are_nan_and_the_others_are_scored(self, pyiqa, make):
        pixels = textured(2)
        pixels[0, 0, 0, 0, 0] = torch.nan
        rows = make("image-quality-piqe").measure(videos(pixels))
        assert rows.isnan().tolist() == [True, False]

    def test_chosen_frames_and_scale(self, pyiqa, make):
        pixels = textured(1, frames=3)
        middle = make("image-quality-piqe").measure(videos(pixels[:, :, 1:2]))
        metric = make("image-quality-piqe", frames=1, scale=0.5)
        assert torch.allclose(metric.measure(videos(pixels)), middle / 2)

    def test_the_direction_and_scale_are_those_of_the_model(self, pyiqa, make):
        default = make("image-quality")
        assert (default.direction, default.scale) == ("higher", 0.01)
        assert make("image-quality", model="niqe").direction == "lower"
        assert make("image-quality", model="musiq-ava").scale == 1

    def test_large_frames_are_shrunk_as_vbench_does(self, pyiqa):
        from salt_zoo_metrics.image_quality import shrink

        transforms = pytest.importorskip("torchvision.transforms")
        frames = torch.randint(0, 256, (2, 3, 48, 83), dtype=torch.uint8)
        wanted = transforms.Resize((int(32 / 83 * 48), 32), antialias=False)(frames)
        found = shrink(frames.float(), 32)
        assert found.shape == wanted.shape and (found - wanted).abs().max() <= 1
        assert shrink(frames.float(), 83).shape == frames.shape

    def test_musiq_from_a_local_file(self, pyiqa, make, tmp_path):
        from pyiqa.archs.musiq_arch import MUSIQ

        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MUSIQ(pretrained=False)
        path = tmp_path / "musiq.pth"
        torch.save(model.state_dict(), path)
        pixels = textured(1)
        rows = make("image-quality", weights=str(path)).measure(videos(pixels))
        frames = (pixels[0].transpose(0, 1).clamp(0, 1) * 255).round() / 255
        with torch.inference_mode():
            wanted = model.eval()(frames).mean() / 100
        assert rows.item() == pytest.approx(wanted.item(), rel=1e-4)

    def test_mistakes_are_one_line(self, pyiqa, make, tmp_path, monkeypatch):
        def refuse(*arguments, **options):
            raise OSError("no network")

        import pyiqa.utils.download_util as downloads

        monkeypatch.setattr(downloads, "download_url_to_file", refuse)
        monkeypatch.setattr(downloads, "DEFAULT_CACHE_DIR", str(tmp_path / "cache"))
        with pytest.raises(ZooError, match="did you mean 'piqe'"):
            make("image-quality", model="piqee")
        with pytest.raises(ZooError, match="not a no-reference metric"):
            make("image-quality", model="psnr")
        with pytest.raises(ZooError, match=r"no network.*the option `weights`"):
            make("image-quality").prepare()
        with pytest.raises(ZooError, match="there is no such file"):
            make("image-quality", weights="absent.pth").prepare()
        (tmp_path / "text.pth").write_text("weights")
        with pytest.raises(ZooError, match="not a file of plain tensors"):
            make("image-quality", weights=str(tmp_path / "text.pth")).prepare()
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
        with pytest.raises(ZooError, match=r"musiq-spaq cannot be made with weights .*other\.pth"):
            make("image-quality", weights=str(tmp_path / "other.pth")).prepare()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random weights of the small CLIP as a local file."""
    open_clip = pytest.importorskip("open_clip", reason="needs the extra `metrics`")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(SMALL_CLIP, pretrained=None)
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.metrics
class TestClipScore:
    def test_it_is_the_mean_cosine_of_open_clip(self, open_clip, weights, make):
        from PIL import Image

        pixels, prompts = textured(3), ["a cat", "a dog that jumps", "a cat"]
        metric = make("clip-score", model=SMALL_CLIP, pretrained=str(weights), batch_size=1)
        rows = metric.measure(videos(pixels, prompts))
        model, _, preprocess = open_clip.create_model_and_transforms(
            SMALL_CLIP, pretrained=str(weights)
        )
        tokenizer = open_clip.get_tokenizer(SMALL_CLIP)
        for row, video, prompt in zip(rows, pixels, prompts, strict=True):
            frames = (video.clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).numpy()
            images = torch.stack([preprocess(Image.fromarray(frame)) for frame in frames])
            with torch.inference_mode():
                image = model.eval().encode_image(images, normalize=True)
                text = model.encode_text(tokenizer([prompt]), normalize=True)
            assert row.item() == pytest.approx((image @ text.T).mean().item(), abs=1e-5)
        assert metric.direction == "higher" and rows.abs().max() <= 1

    def test_prompt_and_frames_matter_and_nan_is_kept(self, open_clip, weights, make):
        metric = make("clip-score", model=SMALL_CLIP, pretrained=str(weights), frames=1)
        pixels = textured(1, channels=1).repeat(3, 1, 1, 1, 1)
        pixels[2, 0, 0, 0, 0] = torch.nan
        rows = metric.measure(videos(pixels, ["a cat", "two dogs", "a cat"]))
        assert rows[0] != rows[1] and rows.isnan().tolist() == [False, False, True]

    def test_mistakes_are_one_line(self, open_clip, weights, make, tmp_path, monkeypatch):
        with pytest.raises(ZooError, match="did you mean 'ViT-B-32'"):
            make("clip-score", model="ViT-B32")
        with pytest.raises(ZooError, match=r"neither a local file nor a tag.*laion2b_s34b_b79k"):
            make("clip-score", pretrained="laion2b_s34b").prepare()
        (tmp_path / "text.pt").write_text("weights")
        with pytest.raises(ZooError, match="the option `pretrained`"):
            make("clip-score", model=SMALL_CLIP, pretrained=str(tmp_path / "text.pt")).prepare()

        def refuse(*arguments, **options):
            raise OSError("no network")

        monkeypatch.setattr("open_clip.factory.download_pretrained", refuse)
        with pytest.raises(ZooError, match=r"no network.*the option `pretrained`"):
            make("clip-score").prepare()
