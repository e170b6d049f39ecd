"""A preparation that ends with a mistake before anything was made leaves no header: once it is
mended the same command works."""

from __future__ import annotations

import os

import pytest

SEVEN = "a 7 moving up-left slowly"
DIGITS = ("--set", "backbone={name: wan, size: digits}", "--device", "cpu")


@pytest.fixture
def prepare(cli, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "text"

    def run(*lines: str):
        prompts.write_text("\n".join(lines))
        sizes = ("--set", "batch_size=1", "--set", "shard_size=2")
        return cli("prepare", "text", "--set", f"prompts={prompts}", *DIGITS, *sizes, "--out", out)

    return run


def test_a_mistake_in_the_first_shard(prepare, tmp_path, monkeypatch):
    from salt_zoo_wan.backbone import WanBackbone

    usual = WanBackbone.encode_once

    def told(self, prompts):
        from salt_zoo.core.base.errors import ZooError

        if "" in prompts:
            raise ZooError("prompt '': is not understood")
        return usual(self, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(WanBackbone, "encode_once", told)
        ended = prepare(SEVEN)
    assert ended.code == 2 and not (tmp_path / "text").exists()
    assert prepare(SEVEN, SEVEN.replace("7", "8")).code == 0


def test_what_was_made_before_a_mistake_is_kept(prepare, tmp_path):
    assert prepare(SEVEN, "a dog").code == 2
    assert sorted(os.listdir(tmp_path / "text")) == ["prepared.json", "text-00000.safetensors"]
    assert "was prepared otherwise" in prepare(SEVEN).error


def test_trajectories(cli, tmp_path, monkeypatch):
    """A network whose weights are not there is loaded when the header is written."""
    out = tmp_path / "trajectories"
    command = ("prepare", "trajectories", "--set", "dataset=digits", "--set", "count=1", *DIGITS)
    command = (*command, "--set", "teacher_steps=4", "--out", out)
    ended = cli(*command, "--set", f"backbone.options.weights={tmp_path}/nowhere")
    assert ended.code == 2 and not out.exists()
