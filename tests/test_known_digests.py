"""Digests of large files, which are read once for each of their states."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from salt_zoo.io import known_digests
from salt_zoo.io.files.storage import file_digest
from salt_zoo.io.known_digests import cache_folder, known_digest


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the files that were read; every file counts as large, and as long settled."""
    names: list[str] = []

    def digest(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(known_digests, "file_digest", digest)
    monkeypatch.setattr(known_digests, "LARGE", 1)
    monkeypatch.setattr(known_digests, "_SETTLED", -1.0)
    return names


def in_another_process(path: Path) -> str:
    """The digest without what this process remembers."""
    known_digests._digest.cache_clear()
    return known_digest(path)


def test_a_large_file_is_read_once(read: list[str], tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    wanted = file_digest(path)
    assert [known_digest(path), known_digest(path), in_another_process(path)] == [wanted] * 3
    assert read == ["weights.bin"]


def test_a_file_that_has_changed_is_read_again(read: list[str], tmp_path: Path) -> None:
    """Also by one of its size that bears its time, as `cp -p` and `rsync -t` leave it."""
    path, other = tmp_path / "weights.bin", tmp_path / "other.bin"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    first = known_digest(path)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    other.replace(path)
    os.utime(path, ns=times)
    assert path.stat().st_mtime_ns == times[1]
    assert in_another_process(path) == file_digest(path) != first
    assert read == ["weights.bin"] * 2


def test_a_damaged_record_is_not_believed(read: list[str], tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    wanted = known_digest(path)
    (record,) = cache_folder().iterdir()
    for damage in (record.read_text().replace(wanted, wanted[::-1]), "{", ""):
        record.write_text(damage)
        assert in_another_process(path) == wanted
    assert len(read) == 4


def test_what_was_written_just_now_is_not_kept(
    read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_digests, "_SETTLED", 3600.0)
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    assert known_digest(path) == file_digest(path)
    assert not cache_folder().exists()


def test_a_small_file_leaves_nothing(
    read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_digests, "LARGE", 10)
    path = tmp_path / "small.bin"
    path.write_bytes(b"one")
    assert known_digest(path) == file_digest(path)
    assert not cache_folder().exists()


def test_a_cache_that_cannot_be_written_is_no_error(read: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one")
    assert known_digest(path) == in_another_process(path) == file_digest(path)
    assert len(read) == 2
