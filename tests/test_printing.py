"""What is printed for people cannot steer a terminal, and no terminal makes it fail."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import threading
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo.io.printing import (
    LONGEST,
    noted_if_slow,
    one_line,
    results,
    results_only,
    say,
    show,
    visible,
)


@given(st.text(max_size=50))
def test_nothing_in_a_visible_text_is_obeyed(text):
    found = visible(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c != "\n" for c in found)
    found.encode("utf-8")
    if text.isprintable():
        assert found == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\udcff", "a\\udcff"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("läuf ✓", "läuf ✓"),
        ("\0", "\\x00"),
    ],
)
def test_control_characters_are_written_out(text, shown):
    assert visible(text) == shown


TALKS = """
from salt_zoo import hookimpl
from salt_zoo_digits.data import Digits

class Talks(Digits):
    def sample(self, *arguments, **options):
        print("a batch")
        return super().sample(*arguments, **options)

@hookimpl
def register(zoo):
    zoo.datasets.add("talks", Talks, "digits that talk")
"""


@given(st.text(min_size=1, max_size=30), st.sampled_from([1, LONGEST, 5000]))
def test_a_line_is_one_short_line(text, times):
    found = one_line("begin " + text * times + " end")
    assert len(found) <= LONGEST and len(found.splitlines()) == 1
    assert found.startswith("begin") and found.endswith("end")


def test_an_output_of_ascii_letters_shows_the_rest_in_another_way(monkeypatch):
    for name, command in (("stdout", show), ("stderr", say)):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding="ascii", errors="strict"))
        command("ünï ✓ \udcff.png")
        getattr(sys, name).flush()
        assert raw.getvalue() == b"\\xfcn\\xef \\u2713 \\udcff.png\n"


def test_standard_output_gets_results_alone(capfd):
    """Whichever thread prints, and whichever of two ends first."""
    with results_only():
        other = threading.Thread(target=print, args=("a data set",))
        other.start()
        other.join()
        print("a metric")
        show("the result")
    print("after it")
    captured = capfd.readouterr()
    assert captured.out == "the result\nafter it\n"
    assert captured.err == "a data set\na metric\n"


PAST_PYTHON = """
import os, subprocess
from salt_zoo.io.printing import results_only, show
with results_only():
    os.write(1, b"a library")
    subprocess.run(["echo", "a program"])
    show("the result")
print("after it")
"""


def test_what_is_printed_past_python_is_no_result(shell):
    ended = shell("-c", PAST_PYTHON)
    assert ended.out == "the result\nafter it\n"
    assert "a library" in ended.err and "a program" in ended.err
    command = [sys.executable, "-m", "salt_zoo", "list"]
    with open("/dev/full", "w") as disk:
        full = subprocess.run(command, stdout=disk, stderr=subprocess.PIPE, text=True)
    assert full.returncode == 1 and "No space left on device" in full.stderr
    assert full.stderr.count("\n") == 1
    shut = subprocess.run(["sh", "-c", f"{shlex.join(command)} >&-"], capture_output=True)
    assert (shut.returncode, shut.stdout, shut.stderr) == (0, b"", b"")


def test_a_block_that_fails_leaves_nothing_behind(capsys):
    with pytest.raises(SystemExit), results_only():
        raise SystemExit(2)
    assert results() is sys.stdout


def test_a_data_set_prints_into_no_result(cli, write_run, tmp_path):
    """Its code runs in a thread that fetches batches ahead, and in this one."""
    (tmp_path / "talks.py").write_text(TALKS)
    run = write_run(dataset={"name": "talks"})
    ended = cli("train", run, "--out", tmp_path / "out", "-p", tmp_path / "talks.py")
    assert ended.code == 0 and ended.out == f"{tmp_path / 'out' / 'student'}\n"
    assert "a batch" in ended.err


def test_a_result_is_not_cut(capsys):
    show("x" * 5000)
    assert len(capsys.readouterr().out) == 5001


def test_what_takes_long_is_noted_and_the_rest_is_not(capsys):
    with noted_if_slow("planning", seconds=60):
        pass
    assert capsys.readouterr().err == ""
    with noted_if_slow("planning", seconds=0.01):
        time.sleep(0.5)
    assert capsys.readouterr().err == "note: planning\n"
