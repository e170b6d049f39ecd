"""Videos as files: every format is read back."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.videos.gif import gif
from salt_zoo.io.videos.video import (
    GAP,
    check_size,
    columns_of,
    enlarge,
    side_by_side,
    strip,
    to_bytes,
    write_videos,
)


@pytest.fixture
def pixels() -> torch.Tensor:
    """Two grey videos of 9 frames: a bright column that moves to the right, and its negative."""
    video = torch.zeros(1, 9, 16, 16)
    for frame in range(9):
        video[:, frame, :, frame] = 1
    return torch.stack([video, 1 - video])


def read_mp4(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), stream.codec_context.name, stream.pix_fmt, stream.average_rate


def test_mp4(pixels, tmp_path):
    path = tmp_path / "a.mp4"
    write_videos(path, pixels[:1], 4.0)
    video, codec, pixel_format, rate = read_mp4(path)
    assert (codec, pixel_format, rate) == ("h264", "yuv420p", 4)
    assert video.shape == (9, 128, 128, 3)
    small = video[:, 4::8, 4::8, 0] / 255  # the middle of every enlarged pixel
    assert np.abs(small - pixels[0, 0].numpy()).max() < 0.15


def test_gif(pixels, tmp_path):
    path = tmp_path / "a.gif"
    write_videos(path, pixels, 4.0)
    with GifImageFile(path) as image:
        assert image.n_frames == 9 and image.info["duration"] == 250 and image.info["loop"] == 0
        image.seek(8)
        last = np.asarray(image.convert("L"))
    assert last.shape == (128, 128 + GAP + 128)
    assert (last[:, 64:72] == 255).all() and last[:, :64].max() == 0


def test_a_still_gif_lasts_as_long(tmp_path):
    write_videos(tmp_path / "a.gif", torch.ones(1, 3, 5, 16, 16), 10.0)
    with GifImageFile(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["duration"]) == (5, 100)


def test_strip(pixels, tmp_path):
    path = tmp_path / "A.PNG"
    write_videos(path, pixels, 4.0)
    picture = np.asarray(Image.open(path))
    assert picture.shape == (2 * 128 + GAP, 9 * (128 + GAP) - GAP, 3)
    assert picture[0, 0].tolist() == [255] * 3 and picture[128 + GAP, 0].tolist() == [0] * 3
    assert os.listdir(tmp_path) == ["A.PNG"]


def test_a_long_video_is_a_strip_of_its_whole_length():
    videos = np.zeros((1, 81, 128, 128, 3), dtype=np.uint8) + np.arange(81, dtype=np.uint8).reshape(
        1, 81, 1, 1, 1
    )
    picture = strip(videos)
    assert picture.shape[1] == 9 * (128 + GAP) - GAP
    assert picture[0, :: 128 + GAP, 0].tolist() == list(range(0, 81, 10))


@pytest.mark.parametrize(
    ("count", "shape"),
    [(1, (128, 128)), (3, (128, 392)), (4, (128, 524)), (5, (260, 392)), (9, (392, 392))],
)
def test_several_lie_side_by_side(count, shape):
    assert side_by_side(np.zeros((count, 2, 128, 128, 3), np.uint8)).shape == (2, *shape, 3)


def test_sizes_are_even_and_large_videos_stay():
    assert enlarge(np.zeros((1, 1, 480, 832, 3), np.uint8)).shape == (1, 1, 480, 832, 3)
    assert enlarge(np.zeros((1, 1, 131, 129, 3), np.uint8)).shape == (1, 1, 132, 130, 3)
    assert enlarge(np.zeros((1, 1, 7, 9, 3), np.uint8)).shape == (1, 1, 134, 172, 3)


def test_odd_large_sizes_can_be_encoded(tmp_path):
    write_videos(tmp_path / "a.mp4", torch.rand(3, 3, 2, 131, 129), 16.0)
    assert read_mp4(tmp_path / "a.mp4")[0].shape == (2, 132, 3 * 130 + 2 * GAP, 3)


def test_values_are_clamped():
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 9.0, float("nan")]).view(1, 1, 1, 1, 6)
    assert to_bytes(values)[0, 0, 0, :, 1].tolist() == [0, 0, 128, 255, 255, 0]
    with pytest.raises(ValueError, match="1 or 3"):
        to_bytes(torch.zeros(1, 2, 1, 4, 4))


@pytest.mark.parametrize("name", ["a.avi", "a", "a.mp4.txt"])
def test_another_ending_is_refused(name, pixels, tmp_path):
    with pytest.raises(ZooError, match=r"write \.mp4, \.gif or \.png"):
        write_videos(tmp_path / name, pixels, 4.0)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(pixels, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ZooError, match="cannot be written"):
        write_videos(tmp_path / "file" / "a.gif", pixels, 4.0)


@given(
    frames=st.integers(1, 12),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    colours=st.sampled_from([1, 2, 5, 256]),
    rate=st.sampled_from([1, 4, 12.5, 16, 24, 29.97, 30, 50]),
)
@settings(max_examples=30)
def test_a_gif_has_every_frame_at_the_right_time(frames, height, width, colours, rate):
    draw = np.random.default_rng(frames * height * width)
    video = draw.integers(0, colours, (frames, height, width, 3), dtype=np.uint8)
    video[frames // 2] = video[0]
    with Image.open(io.BytesIO(gif(video, rate))) as image:
        assert image.n_frames == frames and image.size == (width, height)
        shown = 0
        for place in range(frames):
            image.seek(place)
            assert np.array_equal(np.asarray(image.convert("RGB")), video[place])
            shown += image.info["duration"]
            assert abs(shown - 1000 * (place + 1) / rate) <= 5.01
    with av.open(io.BytesIO(gif(video, rate))) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames


COLOURS = [(230, 20, 20), (20, 200, 40), (10, 10, 250), (255, 255, 255), (0, 0, 0), (90, 90, 90)]


@pytest.mark.parametrize("size", [(720, 1280), (480, 832), (128, 128)])
def test_colours_are_those_of_bt709(size, tmp_path):
    colours = torch.tensor(COLOURS).div(255).view(1, len(COLOURS), 3, 1, 1).transpose(1, 2)
    write_videos(tmp_path / "a.mp4", colours.expand(1, 3, len(COLOURS), *size), 16.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = list(container.decode(video=0))
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (1, 1, 1, 1)
    for frame, colour in zip(frames, COLOURS, strict=True):
        assert int(frame.colorspace) == 1 and int(frame.color_range) == 1
        seen = frame.reformat(format="rgb24", src_colorspace="ITU709", dst_color_range="JPEG")
        middle = seen.to_ndarray()[size[0] // 2, size[1] // 2].astype(int)
        assert np.abs(middle - colour).max() <= 6, (colour, middle)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("ending", [".mp4", ".gif", ".png"])
def test_what_is_not_finite_is_not_written(value, ending, pixels, tmp_path):
    broken = pixels.clone()
    broken[1, 0, 3] = value
    with pytest.raises(ZooError, match=r"video 2 of 2 is not finite \(11.1% of its values"):
        write_videos(tmp_path / f"a{ending}", broken, 4.0)
    assert os.listdir(tmp_path) == []


def test_more_than_the_codec_holds(tmp_path):
    wide = torch.zeros(1, 3, 1, 16, 16640)
    with pytest.raises(ZooError, match=r"128x133120, and .mp4 holds at most 16384 a side"):
        write_videos(tmp_path / "a.mp4", wide, 4.0)
    with pytest.raises(ZooError, match=r"--out FOLDER"):
        check_size(tmp_path / "a.mp4", 400, 1000, 2000)
    assert os.listdir(tmp_path) == []


@given(st.integers(1, 500), st.integers(1, 3000), st.integers(1, 3000))
def test_a_picture_is_never_wider_than_the_codec_takes(count, height, width):
    try:
        check_size(Path("a.mp4"), count, height, width)
    except ZooError:
        return
    factor = max(1, -(-128 // min(height, width)))
    height, width = height * factor, width * factor
    height, width = height + height % 2, width + width % 2
    columns = columns_of(count, height, width, 16384)
    assert columns * (width + GAP) - GAP <= 16384
    assert -(-count // columns) * (height + GAP) - GAP <= 16384
