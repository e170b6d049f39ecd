"""Images of files as first frames: as they look, or refused in one line."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.videos.image_reading import check_image, read_image

RAMP = np.linspace(0, 1, 48)[None].repeat(32, 0)
GREY = torch.from_numpy(RAMP).float()


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P"])
def test_a_ramp_is_a_ramp(ending, mode, tmp_path):
    image = Image.fromarray((RAMP * 255).round().astype(np.uint8)).convert(mode)
    path = tmp_path / f"a.{ending}"
    try:
        image.save(path, **({"lossless": True} if ending == "webp" else {}))
    except OSError:
        pytest.skip(f".{ending} has no {mode}")
    check_image(path)
    for channels in (1, 3):
        pixels = read_image(path, (channels, 32, 48))
        assert (pixels - GREY).abs().max() < 0.01


@pytest.mark.parametrize(
    ("ending", "kind", "white"),
    [("png", np.uint16, 65535), ("tif", np.uint16, 65535), ("tif", np.int32, 65535),
     ("tif", np.float32, 1), ("tif", np.float32, 255)],
)  # fmt: skip
def test_values_of_more_than_8_bits_are_refused(ending, kind, white, tmp_path):
    """Pillow cuts them off at 255: nearly all of this ramp would be white, or black."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray((RAMP * white).astype(kind)).save(path)
    for look in (check_image, lambda path: read_image(path, (3, 32, 48))):
        with pytest.raises(ZooError, match="has more than 8 bits a channel") as raised:
            look(path)
        assert "\n" not in str(raised.value)


def test_an_error_is_all_that_is_said(tmp_path, caplog, recwarn):
    """Pillow logs and warns of odd files."""
    path = tmp_path / "a.tif"
    Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB").save(path)
    samples = struct.pack("<HHI", 277, 3, 1)  # SamplesPerPixel, a short
    assert samples in path.read_bytes()
    before, after = path.read_bytes().split(samples)
    path.write_bytes(before + samples + struct.pack("<H", 2048) + after[2:])
    with pytest.raises(ZooError, match="cannot be read as an image"):
        check_image(path)
    image = Image.fromarray((RAMP * 255).astype(np.uint8))
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\xff" + b"\xff" * 40)
    read_image(tmp_path / "a.jpg", (3, 32, 48))
    assert not caplog.records and not recwarn.list


def test_what_is_no_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder.png").mkdir()
    for name, said in {
        "pipe": "no regular file", "zero": "no regular file", "folder": "it is a folder",
        "loop": "cannot be read", "none": "there is no such file",
    }.items():  # fmt: skip
        with pytest.raises(ZooError, match=said):
            check_image(tmp_path / f"{name}.png")
