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


@pytest.mark.parametrize("text", ["a\0fox", " \n"])
def test_text_that_is_none(text, caption):
    with pytest.raises(ZooError, match=r"clip\.txt: (not a text file|the caption is empty)"):
        caption(txt=text)


@pytest.fixture
def table(tmp_path):
    """The captions of a table of one video."""
    (tmp_path / "0.mp4").write_text("no video")

    def read(text: str, ending: str = "csv") -> list[str]:
        path = tmp_path / f"a.{ending}"
        path.write_text(text)
        return [video.caption for video in find_videos(path)]

    return read


def test_tables_are_those_of_prompts(table):
    """With the marks and quotes that people have."""
    assert table('path,caption\n0.mp4,"a fox, at night"\n') == ["a fox, at night"]
    assert table("path;caption\n0.mp4;a fox, at night\n") == ["a fox, at night"]
    assert table("path\tcaption\n0.mp4\ta fox\n", "tsv") == ["a fox"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,caption\n0.mp4,a fox, at night\n", "a prompt with a comma needs quotes"),
        ("path,caption,path\n0.mp4,a fox,0.mp4\n", "has the column 'path' twice"),
        ("path,caption\n0.mp4,a\0fox\n", "not a text file"),
        ("path,caption\n0.mp4\n", "the caption is empty"),
        ("path,caption\n,a fox\n", "there is no file"),
        ('path,caption\n0.mp4,"a fox\n', "not a complete table"),
    ],
)
def test_a_table_that_would_be_cut(text, said, table):
    with pytest.raises(ZooError, match=said):
        table(text)
