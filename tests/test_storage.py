"""Files are whole or not there; digests name content, not its order."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import TrainingError, ZooError
from salt_zoo.io.files.seals import SEAL, sealed
from salt_zoo.io.files.storage import (
    atomic_file,
    atomic_folder,
    digest,
    file_digest,
    prepare_folder,
    write_json,
    write_text,
)


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert path.read_text() == '{\n "a": 2\n}\n'
    assert os.listdir(path.parent) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_fails_leaves_the_old_one(error, tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error), atomic_file(path) as draft:
        assert draft.suffix == ".txt"
        draft.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_the_old_one(error, tmp_path):
    folder = tmp_path / "folder"
    with atomic_folder(folder) as draft:
        (draft / "old").touch()
    with pytest.raises(error), atomic_folder(folder) as draft:
        (draft / "new").touch()
        raise error
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(folder) == ["old"]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "deep" / "folder"
    for name in ("old", "new"):
        with atomic_folder(folder) as draft:
            (draft / "inner").mkdir()
            (draft / "inner" / name).touch()
    assert os.listdir(folder.parent) == ["folder"]
    assert os.listdir(folder / "inner") == ["new"]


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(tmp_path):
    folder = tmp_path / "folder"
    with atomic_folder(folder) as draft:
        (draft / "old").touch()
    with pytest.raises(ZooError, match="cannot be written"), atomic_folder(folder) as draft:
        draft.rmdir()  # somebody deletes it
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(folder) == ["old"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_no_mistake_of_the_user(code, tmp_path):
    with pytest.raises(TrainingError) as raised, atomic_file(tmp_path / "a") as draft:
        draft.write_text("half")
        raise OSError(code, os.strerror(code))
    assert str(tmp_path / "a") in str(raised.value) and "free some space" in str(raised.value)
    assert raised.value.exit_code == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [atomic_file, atomic_folder])
def test_a_place_below_a_file_cannot_be_written(write, tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ZooError, match=r"file is a file.*choose another"),
        write(tmp_path / "file" / "a"),
    ):
        pass
    with pytest.raises(ZooError, match="choose another"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(ZooError, match="choose another"):
        prepare_folder(tmp_path / "file" / "folder")
    assert os.listdir(tmp_path) == ["file"]


def test_errors_of_other_files_are_not_blamed_on_this_one(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "out" / "a"):
        (tmp_path / "elsewhere" / "input").read_text()
    with pytest.raises(RuntimeError, match="else"), atomic_folder(tmp_path / "b"):
        raise RuntimeError("something else")
    assert not (tmp_path / "b").exists()


def test_a_prepared_folder_is_empty(tmp_path):
    prepare_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []


class Options(StrictModel):
    b: int = 2
    a: tuple[int, ...] = (1,)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_a_digest_does_not_depend_on_the_order_of_keys(content):
    backwards = dict(reversed(list(content.items())))
    assert digest(content) == digest(backwards)
    assert digest({**content, "one more key": 1}) != digest(content)


def test_digests(tmp_path):
    assert digest(Options()) == digest({"a": [1], "b": 2})
    assert digest({"inner": Options()}) == digest({"inner": {"a": [1], "b": 2}})
    assert digest({}) == "44136fa355b3678a"  # names on disk must not change
    (tmp_path / "a").write_bytes(b"bytes")
    assert file_digest(tmp_path / "a") == "277089d91c0bdf4f"


def test_two_records_of_one_training_have_one_digest():
    """Their wall times differ; every other change is seen."""
    record = {"cost": {"updates": 4, "seconds": 1.5}, "curve": [{"step": 1, "seconds": 0.2}]}
    slower = {"cost": {"updates": 4, "seconds": 9.0}, "curve": [{"step": 1, "seconds": 3.0}]}
    other = {"cost": {"updates": 5, "seconds": 1.5}, "curve": [{"step": 1, "seconds": 0.2}]}
    first, second, third = (sealed(content)[SEAL] for content in (record, slower, other))
    assert first == second != third
