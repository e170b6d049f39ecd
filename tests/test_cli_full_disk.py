"""A full disk during `salt-zoo train`: one line, exit code 1, and the run goes on afterwards."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_zoo")


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 8 MiB: one checkpoint of 5 MB fits, two do not."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """The kernel refuses files above a size; like a full disk, and every user may. Not longer than
    the command: pytest's own output may go to a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


#: Optimizer states are then twice the weights.
TWO_MOMENTS = {"optimizers": {"student": {"betas": [0.9, 0.999]}}}


def only_whole_checkpoints(folder: Path, *steps: int) -> bool:
    return sorted(os.listdir(folder)) == [f"step-{step:06d}" for step in steps]


def test_a_full_disk_keeps_what_was_done_and_the_run_goes_on(small_disk, write_run, cli):
    config, out = write_run(training=TWO_MOMENTS), small_disk / "out"
    ended = cli("train", config, "--out", out)
    assert (ended.code, ended.out) == (1, "")
    assert str(out / "checkpoints" / "step-000004") in ended.error
    assert "No space left on device" in ended.error and "free some space" in ended.error
    assert only_whole_checkpoints(out / "checkpoints", 2)
    assert not (out / "student").exists()
    remount = ["mount", "-o", "remount,size=64m", str(small_disk)]
    subprocess.run(remount, check=True)
    assert cli("train", config, "--out", out).code == 0
    assert only_whole_checkpoints(out / "checkpoints", 2, 4)


def test_a_disk_that_is_full_of_logs(small_disk, write_run, cli):
    """They are written by a thread of their own."""
    subprocess.run(["mount", "-o", "remount,size=12k", str(small_disk)], check=True)
    logs = {"trackers": ["tensorboard"], "updates": 60, "checkpoint_every": 1000}
    out = small_disk / "out"
    run = write_run(training=logs, backbone={"size": "test-tiny"})
    ended = cli("train", run, "--out", out, "-p", "tests.sizes.plugin")
    assert ended.code == 1
    assert ended.error.startswith(f"error: {out / 'logs'}: cannot be written (No space left")
    assert "run the same command again" in ended.error


def test_a_disk_that_is_full_from_the_start(small_disk, write_run, cli):
    (small_disk / "filling").write_bytes(bytes(7 << 20))
    with pytest.raises(OSError, match="No space left"), open(small_disk / "rest", "wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    ended = cli("train", write_run(), "--out", small_disk / "out")
    assert ended.code == 1 and "No space left on device" in ended.error
    assert os.listdir(small_disk / "out") == []


@pytest.mark.parametrize(
    ("size", "writer"), [(100_000, "safetensors"), (2_000_000, "torch.save of the optimizers")]
)
def test_every_writer_of_a_checkpoint(size, writer, write_run, cli, tmp_path):
    config, out = write_run(training=TWO_MOMENTS), tmp_path / "out"
    with limited_files(size):
        ended = cli("train", config, "--out", out)
    assert (ended.code, ended.out) == (1, "")
    assert str(out / "checkpoints" / "step-000002") in ended.error
    assert "free some space" in ended.error
    assert os.listdir(out / "checkpoints") == []


def test_a_student_that_cannot_be_saved(write_run, cli, tmp_path):
    config, out = write_run(), tmp_path / "out"
    assert cli("train", config, "--out", out).code == 0
    before = (out / "student" / "salt_zoo.json").read_bytes()
    with limited_files(100_000):
        ended = cli("train", config, "--out", out)
    assert ended.code == 1 and str(out / "student") in ended.error
    assert (out / "student" / "salt_zoo.json").read_bytes() == before
    assert sorted(os.listdir(out)) == ["checkpoints", "run.yaml", "student"]


def test_a_video_that_cannot_be_saved(write_run, cli, tmp_path):
    config, out = write_run(), tmp_path / "out"
    assert cli("train", config, "--out", out).code == 0
    sample = ("sample", "a 7 moving up slowly", "--nfe", 1, "--checkpoint", out)
    with limited_files(1000):
        ended = cli(*sample, "--out", tmp_path / "videos" / "a.png")
    assert ended.code == 1 and "a.png" in ended.error
    assert os.listdir(tmp_path / "videos") == []
