"""A pipe in the place of a file is a line at once: who opens one waits for its writer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.seals import Damaged, check_files, file_digests, read_json
from salt_zoo.io.packed import HEADER, read_header
from salt_zoo.io.prompt_files import read_prompt_file
from salt_zoo.io.videos.captioned_videos import find_videos
from salt_zoo.io.videos.image_reading import read_image
from salt_zoo.io.yaml import read_yaml
from salt_zoo_ode.store import HEADER as TRAJECTORIES
from salt_zoo_ode.store import read_folder


def sealed(folder: Path) -> None:
    path = folder / "a.json"
    os.rename(path, folder / "pipe")
    path.write_text("{}")
    digests = file_digests(folder, ["a.json"])
    path.unlink()
    os.rename(folder / "pipe", path)
    check_files(folder, digests)


#: By who reads: the name of what is a pipe, and files beside it.
READERS: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    "prepared": (read_header, HEADER, ()),
    "trajectories": (read_folder, TRAJECTORIES, ()),
    "captions": (find_videos, "a.txt", ("a.mp4",)),
    "videos": (find_videos, "a.mp4", ("a.txt",)),
    "table": (lambda folder: find_videos(folder / "a.csv"), "a.csv", ()),
    "prompts": (lambda folder: read_prompt_file(folder / "a.txt"), "a.txt", ()),
    "prompts-csv": (lambda folder: read_prompt_file(folder / "a.csv"), "a.csv", ()),
    "prompts-parquet": (lambda folder: read_prompt_file(folder / "a.parquet"), "a.parquet", ()),
    "image": (lambda folder: read_image(folder / "a.png", (3, 8, 8)), "a.png", ()),
    "yaml": (lambda folder: read_yaml(folder / "a.yaml"), "a.yaml", ()),
    "json": (lambda folder: read_json(folder / "a.json"), "a.json", ()),
    "student": (sealed, "a.json", ()),
}


@pytest.fixture
def at_once() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reader", READERS)
def test_nobody_waits_for_it(reader, at_once, tmp_path):
    read, name, beside = READERS[reader]
    for other in beside:
        (tmp_path / other).write_text("a fox")
    os.mkfifo(tmp_path / name)
    with pytest.raises((ZooError, Damaged)) as raised:
        read(tmp_path)
    assert str(tmp_path / name) in str(raised.value) and "\n" not in str(raised.value)
    assert "no regular file" in str(raised.value) or reader == "prompts-parquet"
