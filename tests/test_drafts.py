"""What a killed process leaves half-written goes; what a living one writes stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from salt_zoo.io.files.drafts import LOCK, draft, remove_drafts, sweep
from salt_zoo.io.files.owners import Owner
from salt_zoo.io.files.storage import atomic_file, atomic_folder

#: Dies in the middle of a write, or waits in it for the end of its standard input.
WRITER = """
import os, signal, sys
from pathlib import Path
from salt_zoo.io.files.storage import atomic_file, atomic_folder

write = {"file": atomic_file, "folder": atomic_folder}[sys.argv[1]]
with write(Path(sys.argv[2])) as draft:
    (draft if draft.suffix == ".txt" else draft / "inner").write_text("half")
    print("writing", flush=True)
    if not sys.stdin.read():
        os.kill(os.getpid(), signal.SIGKILL)
"""


def start(kind: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize(("kind", "name"), [("file", "a.txt"), ("folder", "a")])
def test_drafts_of_the_dead_go_with_the_next_write(kind, name, tmp_path):
    killed = start(kind, tmp_path / name)
    killed.communicate("")
    assert killed.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".")
    with atomic_file(tmp_path / "other") as mine:
        mine.write_text("whole")
    assert os.listdir(tmp_path) == ["other"]


@pytest.mark.parametrize(("kind", "name"), [("file", "a.txt"), ("folder", "a")])
def test_drafts_of_the_living_stay(kind, name, tmp_path):
    living = start(kind, tmp_path / name)
    try:
        with atomic_folder(tmp_path / "other"):
            pass
        sweep(tmp_path)
        assert len(os.listdir(tmp_path)) == 2
        living.communicate("go on")
        assert sorted(os.listdir(tmp_path)) == [name, "other"]
    finally:
        living.kill()


def gone(host: str | None = None) -> Owner:
    """A process that has certainly ended: with this one's number, but started at another time."""
    me = Owner.current()
    return Owner(host or me.host, me.pid, me.started + 1)


def name_of(owner: Owner, name: str, kind: str, ending: str = "") -> str:
    return draft(Path(), name, kind, ending).name.replace(Owner.current().token, owner.token)


def test_a_crash_between_two_renames_loses_nothing(tmp_path):
    """The old folder is put back where the new one has not taken its place, else removed."""
    for kept in ("student", "step-000002"):
        (tmp_path / name_of(gone(), kept, "old")).mkdir()
    for path in tmp_path.glob(".*"):
        (path / "weights").touch()
    (tmp_path / "step-000002").mkdir()
    remove_drafts(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["step-000002", "student"]
    assert os.listdir(tmp_path / "student") == ["weights"]


def test_a_sweep_clears_all_below_but_what_lives(tmp_path):
    deep = tmp_path / "arms" / "a" / "checkpoints"
    deep.mkdir(parents=True)
    (deep / ".step-000004.0badcafe.part").mkdir()  # of versions that named no process
    (deep / ".0badcafe.part.json").touch()
    (deep / name_of(gone("elsewhere"), "step-000002", "part")).mkdir()
    (deep / name_of(gone(), "", "part", ".npz")).touch()
    mine = draft(deep)
    mine.touch()
    (deep / ".profile").touch()
    (deep / "step-000002").mkdir()
    sweep(tmp_path)
    assert sorted(os.listdir(deep)) == sorted([mine.name, ".profile", "step-000002"])


def test_a_sweep_leaves_folders_of_other_writers_alone(tmp_path):
    for name in ("living", "dead"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".step-000004.0badcafe.part").mkdir()
    here = Owner.current()
    line = '{{"host": "{}", "pid": {}, "started": {}}}'
    (tmp_path / "living" / LOCK).write_text(line.format("elsewhere", 1, 2))
    (tmp_path / "dead" / LOCK).write_text(line.format(here.host, here.pid, here.started + 1))
    sweep(tmp_path)
    assert len(os.listdir(tmp_path / "living")) == 2
    assert os.listdir(tmp_path / "dead") == []


def test_files_have_the_mode_of_the_umask(tmp_path):
    """safetensors writes its files for their owner alone."""
    import safetensors.torch
    import torch

    before = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "inner").mkdir()
            safetensors.torch.save_file({"a": torch.zeros(1)}, folder / "inner" / "a.safetensors")
        with atomic_file(tmp_path / "b.safetensors") as file:
            safetensors.torch.save_file({"a": torch.zeros(1)}, file)
    finally:
        os.umask(before)
    for path in (tmp_path / "folder" / "inner" / "a.safetensors", tmp_path / "b.safetensors"):
        assert oct(path.stat().st_mode & 0o777) == "0o640"
