"""Readers that leave: of results, which ends the command, and of progress, which ends nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from salt_zoo.cli import guarded
from salt_zoo.io.consoles import NotesConsole, ResultsConsole
from salt_zoo.io.printing import say


@pytest.fixture
def left() -> Iterator[int]:
    """A pipe whose reader has gone."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def test_who_has_seen_enough_of_the_results_ends_the_command(left, monkeypatch):
    with open(os.dup(left), "w", buffering=1) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        done = []

        def run() -> None:
            ResultsConsole(width=40).print("a table")
            done.append(True)

        assert guarded(run) == 0 and not done


@pytest.mark.parametrize("tell", [say, lambda line: NotesConsole().print(line)])
def test_progress_that_nobody_reads_ends_nothing(tell, left, monkeypatch):
    with open(os.dup(left), "w", buffering=1) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        done = []

        def run() -> None:
            for _ in range(3):
                tell("a line")
            done.append(True)

        assert guarded(run) == 0 and done
        print("and this goes nowhere", file=stderr)
