"""Names of files for prompts, whatever the prompts are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo.cli.outputs import file_names, slug, videos_of
from salt_zoo.core.base.errors import ZooError

ANY = st.text(st.characters(), min_size=1, max_size=30)


@given(st.lists(ANY, min_size=1, max_size=6), st.integers(1, 3), st.sampled_from([".mp4", ".gif"]))
def test_names_by_index(prompts, per_prompt, ending):
    names = file_names(videos_of(prompts, per_prompt), "index", ending)
    assert len(set(names)) == len(names) == len(prompts) * per_prompt
    assert names == sorted(names)
    for name in names:
        assert name.isascii() and "/" not in name and name.endswith(ending) and len(name) < 90
        assert all(one.isalnum() or one in "-." for one in name) and not name.startswith(".")


@given(st.lists(ANY, min_size=1, max_size=6), st.integers(1, 3))
def test_vbenchs_names(prompts, per_prompt):
    videos = videos_of(prompts, per_prompt)
    try:
        names = file_names(videos, "vbench", ".mp4")
    except ZooError as error:
        assert "--names index" in str(error) and "\n" not in str(error)
        assert any(not one.isprintable() or one == "/" for prompt in prompts for one in prompt)
        return
    assert len(set(names)) == len(names)
    for video, name in zip(videos, names, strict=True):
        assert name == f"{video.prompt}-{video.occurrence}.mp4"
        assert "/" not in name and len(name.encode()) <= 255


def test_how_vbench_looks_for_them():
    videos = videos_of(["a red fox", "waves", "a red fox"], 2)
    assert file_names(videos, "vbench", ".mp4") == [
        "a red fox-0.mp4", "a red fox-1.mp4", "waves-0.mp4",
        "waves-1.mp4", "a red fox-2.mp4", "a red fox-3.mp4",
    ]  # fmt: skip
    with pytest.raises(ZooError, match="longer than 255 bytes"):
        file_names(videos_of(["ä" * 130], 1), "vbench", ".mp4")


def test_slugs():
    assert slug("A red fox, über snow!") == "a-red-fox-uber-snow"
    assert slug("狐") == "" and slug("../../x") == "x"
    assert len(slug("word " * 100_000)) <= 60
