"""What two processes prepare is what one does, and what one that is killed goes on with."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from salt_zoo.cli import main
from tests.forked import Forked
from tests.two_processes import ROOT, run_in_two_processes

PARTS = ("--set", "backbone={name: wan, size: test-small}", "--set", "dataset=digits")
COMMANDS = {
    "text": ("--set", "shard_size=30"),
    "latents": ("--set", "count=40", "--set", "shard_size=8", "--set", "batch_size=3"),
    "trajectories": (
        *("--set", "count=10", "--set", "batch_size=2", "--set", "teacher_steps=4"),
        *("--set", "precision=fp32"),
    ),
}


def command(kind: str, folder: Path) -> list[str]:
    words = ("prepare", kind, "-p", "tests.sizes.plugin", "--out", str(folder), "--device", "cpu")
    return [*words, *PARTS, *COMMANDS[kind]]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for kind in COMMANDS:
        assert main(command(kind, folder / kind)) == 0
    return folder


@pytest.mark.slow
def test_two_processes_are_one(alone, tmp_path):
    """Each makes a part of the shards; together they are bitwise those of one."""
    (tmp_path / "commands.json").write_text(
        json.dumps([command(kind, tmp_path / kind) for kind in COMMANDS])
    )
    script = Path(__file__).parent / "prepared_runs.py"
    said = run_in_two_processes(script, tmp_path / "commands.json")
    assert said.split() == [str(tmp_path / kind) for kind in COMMANDS]  # said once
    for kind in COMMANDS:
        assert content(tmp_path / kind) == content(alone / kind), kind


def test_shards_are_dealt(monkeypatch):
    from salt_zoo.io.dealing import deal

    monkeypatch.setenv("WORLD_SIZE", "3")
    made = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        made.append([*deal(lambda: [0, 1, 4, 5, 6, 7, 9])])
    assert made == [[0, 5, 9], [1, 6], [4, 7]]


@pytest.mark.slow
def test_killed_for_real(alone, tmp_path):
    """After SIGKILL the same command makes what is missing, and nothing else, bitwise."""
    folder = tmp_path / "trajectories"
    process = Forked("-m", "salt_zoo", *command("trajectories", folder), cwd=ROOT)
    until = time.monotonic() + 300
    while not [*folder.glob("[!.]*.safetensors")] and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*.safetensors")}
    assert 0 < len(kept) < 5
    assert main(command("trajectories", folder)) == 0
    assert content(folder) == content(alone / "trajectories")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("kind", ["text", "latents"])
def test_an_interrupted_preparation_goes_on(kind, alone, tmp_path, monkeypatch, cli):
    from salt_zoo.io.packed import PackedFolder

    write = PackedFolder.write

    def interrupted(folder, shard, items, full):
        if shard == 2:
            signal.raise_signal(signal.SIGINT)
        write(folder, shard, items, full)

    monkeypatch.setattr(PackedFolder, "write", interrupted)
    folder = tmp_path / kind
    ended = cli(*command(kind, folder))
    assert ended.code == 130 and "run the same command again" in ended.err
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*.safetensors")}
    assert len(kept) == 2 and not (folder / "index.parquet").exists()
    monkeypatch.undo()
    assert cli(*command(kind, folder)).code == 0
    assert content(folder) == content(alone / kind)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
