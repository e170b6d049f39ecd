"""Captions in tar files as they are: text, or the line says what is there instead."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.videos.captioned_videos import find_videos


@pytest.fixture
def caption(tmp_path):
    """The caption of the one video of a tar, beside it the given files."""

    def read(**files: str) -> str:
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as tar:
            for name, text in {"mp4": "no video", **files}.items():
                member = tarfile.TarInfo(f"clip.{name}")
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
        (video,) = find_videos(path)
        return video.caption

    return read


def test_it_is_the_text_or_a_field_of_the_json(caption):
    assert caption(txt=" a fox\n") == "a fox"
    assert caption(json='{"width": 9, "caption": "a hare"}') == "a hare"


@pytest.mark.parametrize("beside", ['{"width": 9}', '{"caption": "a hare"}', "{", "[]"])
def test_beside_a_text_the_json_may_hold_anything(beside, caption):
    """Tools that write such tars keep what they know of a video there."""
    assert caption(json=beside, txt="a fox") == caption(txt="a fox", json=beside) == "a fox"


@pytest.mark.parametrize("value", [None, 3, True, ["a fox"], {"en": "a fox"}, float("nan")])
def test_what_is_no_text_is_no_caption(value, caption):
    with pytest.raises(ZooError, match=r"clip\.json: the caption is .*, not text"):
        caption(json=json.dumps({"caption": value}))


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '["caption"]', '"caption"', "{}"])
def test_json_without_a_caption(content, caption):
    with pytest.raises(ZooError, match=r"clip\.json: (cannot be read|the caption is empty)"):
        caption(json=content)
