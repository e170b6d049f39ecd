"""`~` in paths: the home that it stands for; with a name that is nobody's it is a missing file."""

from __future__ import annotations

from pathlib import Path

import pytest

from salt_zoo.io.files.regular import expanded

NOBODY = "~nobody-at-all/x"
WAN = ("--backbone=wan", "--size=digits")
CAUSAL = ("--backbone=self-forcing", "--size=digits")


def test_homes(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expanded("~/x") == expanded(Path("~/x")) == Path("/home/somebody/x")
    assert expanded(NOBODY) == Path(NOBODY) and expanded("a/~") == Path("a/~")


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "a 7", "--checkpoint", NOBODY),
        ("sample", "--prompts", NOBODY, *WAN),
        ("prepare", "latents", "--set", f"videos={NOBODY}", "--set", "backbone=wan"),
        ("sample", "a 7", *WAN, f"--set=backbone.options.weights={NOBODY}"),
        ("stream", "a 7", "--frames=3", *CAUSAL, f"--set=backbone.initial={NOBODY}"),
    ],
)
def test_commands_say_that_it_is_missing(command, cli, tmp_path):
    out = tmp_path / ("latents" if command[0] == "prepare" else "a.mp4")
    ended = cli(*command, "--out", out)
    assert ended.code == 2 and NOBODY in ended.error and not out.exists()
