"""Without a terminal a long run says something every half minute (here: every few milliseconds)."""

from __future__ import annotations

import threading

import pytest

from benchmarks.runner.workers.progress import study_progress
from salt_zoo.cli import progress
from salt_zoo.cli.sample import counted


@pytest.fixture
def lines(monkeypatch):
    """Waits for the next line that says `text`, and returns it."""
    said: list[str] = []
    more = threading.Condition()

    def print_line(self, line, **options):
        with more:
            said.append(line)
            more.notify_all()

    def wait(text: str) -> str:
        with more:
            more.wait_for(lambda: any(text in line for line in said))
            return next(line for line in said if text in line)

    monkeypatch.setattr(progress.Console, "print", print_line)
    monkeypatch.setattr(progress, "SECONDS", 0.005)
    return wait


def test_a_training_says_so_before_and_within_an_update(lines):
    with progress.training_progress("dmd") as update:
        lines("dmd: getting ready")
        update(3, 120, {"student/loss": 0.5})
        lines("dmd 3/120 student updates  student/loss 0.5")
        update(4, 120, {"student/loss": 0.25})
        assert lines("dmd 4/120").endswith("min left")


def test_a_stream_without_end_says_how_long_it_is(lines):
    with progress.stream_progress(None) as update:
        update(12, 3.5)
        lines("stream 12 frames  3.5 a second")


def test_videos_are_counted(lines, tmp_path):
    """From before the first one on; each when it has been written."""
    with progress.told_bar("sample", "videos") as told:
        for video in counted(iter("ab"), 2, told):
            lines(f"sample {'ab'.index(video)}/2 videos")
        lines("sample 2/2 videos")


def test_a_study_says_what_it_is_doing(lines):
    with study_progress(["real", "dmd-seed0", "cd-seed0"]) as show:
        lines("0 of 3 done after 0.0 min; getting ready")
        show(0, 1, 1, "done")
        assert lines("done: ") == "done: real (1 of 3)"
        show(1, 41, 120, "training")
        show(2, 1, 1, "measuring")
        lines("1 of 3 done after 0.0 min; training dmd-seed0 41/120, measuring cd-seed0")
