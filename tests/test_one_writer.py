"""Two runs never write into one folder; a lock that a dead process has left stops nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.drafts import LOCK
from salt_zoo.io.files.one_writer import one_writer
from salt_zoo.io.files.owners import Owner

pytestmark = pytest.mark.usefixtures("one_zoo")

HOLDER = """
import sys
from pathlib import Path
from salt_zoo.cli import guarded
from salt_zoo.io.files.one_writer import one_writer
from salt_zoo.io.printing import show

def hold():
    with one_writer(Path(sys.argv[1])):
        show("held")
        sys.stdin.read()

sys.exit(guarded(hold))
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_one_line(holder, tmp_path, cli, write_run):
    ended = cli("train", write_run(), "--out", tmp_path / "run")
    assert ended.code == 2
    assert f"process {holder.pid} on " in ended.error and ", since 20" in ended.error
    assert "another run writes there" in ended.error and "choose another folder" in ended.error
    assert os.listdir(tmp_path / "run") == [LOCK]


def test_a_killed_owner_is_taken_over(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with one_writer(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_leaves_nothing(number, code, holder, tmp_path):
    holder.send_signal(number)
    _, said = holder.communicate()
    assert holder.returncode == code
    assert said == "interrupted; run the same command again to resume\n"
    assert not (tmp_path / "run").exists()


def lock_of(owner: Owner) -> str:
    content = {"host": owner.host, "pid": owner.pid, "started": owner.started, "since": "then"}
    return json.dumps(content)


def test_another_host_is_not_guessed_about(tmp_path):
    (tmp_path / LOCK).write_text(lock_of(Owner("node-17", 1, 2)))
    said = r"process 1 on node-17, since then.*delete .*\.lock"
    with pytest.raises(ZooError, match=said), one_writer(tmp_path):
        pass
    assert (tmp_path / LOCK).exists()


def test_a_number_that_another_process_has_now_is_no_owner(tmp_path):
    here = Owner.current()
    (tmp_path / LOCK).write_text(lock_of(Owner(here.host, here.pid, here.started + 1)))
    with one_writer(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_an_unreadable_lock_is_named(tmp_path):
    (tmp_path / LOCK).write_text("{")
    with pytest.raises(ZooError, match=r"cannot be read.*delete"), one_writer(tmp_path):
        pass


def test_one_process_may_enter_twice_and_removes_the_empty_folders_it_made(tmp_path):
    folder = tmp_path / "deep" / "run"
    with one_writer(folder):
        with one_writer(Path(os.path.relpath(folder))):
            pass
        assert (folder / LOCK).exists()
    assert os.listdir(tmp_path) == []


def test_who_waits_gets_it(holder, tmp_path):
    threading.Timer(0.5, holder.stdin.close).start()
    with one_writer(tmp_path / "run", patience=600):
        pass
    assert holder.wait() == 0
