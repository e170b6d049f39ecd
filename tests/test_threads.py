"""Threads of libraries and plugins that end by an error."""

from __future__ import annotations

import errno
import threading

import pytest

from salt_zoo.cli import guarded


def raising(error: BaseException):
    def run() -> None:
        raise error

    def command() -> None:
        thread = threading.Thread(target=run, name="loader")
        thread.start()
        thread.join()

    return command


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a batch"), "warning: loader has ended: ValueError: a batch\n"),
        (SystemExit(3), ""),
        (OSError(errno.ENOSPC, "full"), ""),  # the next that writes says so
    ],
)
def test_an_error_that_ends_a_thread_is_a_line(error, said, capsys):
    before = threading.excepthook
    assert guarded(raising(error)) == 0
    assert capsys.readouterr().err == said
    assert threading.excepthook is before
