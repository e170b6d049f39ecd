"""`salt-zoo stream`: files that grow, prompts that change, Ctrl-C, and errors beforehand."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import av
import numpy as np
import pytest
import torch
from PIL import Image

from salt_zoo.rollout.stream import Stream, Timeline
from salt_zoo_digits.size import CAUSAL
from tests.forked import Forked

pytestmark = pytest.mark.usefixtures("one_zoo")

SEVEN, THREE = "a 7 moving up-left slowly", "a 3 moving right quickly"


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


@pytest.fixture
def stream(cli, teacher, tmp_path):
    """Runs the command with the random weights; the file is `tmp_path/deep/a.mp4`."""

    def run(*arguments, out="a.mp4", backbone="self-forcing", prompt=SEVEN):
        source = ("--backbone", backbone, "--size", "digits")
        weights = ("--set", f"backbone.options.weights={teacher}")
        place = ("--out", tmp_path / "deep" / out, "--nfe", 1)
        return cli("stream", prompt, *source, *weights, *place, *arguments)

    return run


@pytest.fixture
def checkpoint(zoo, teacher, tmp_path):
    """Saves a student with a memory, as `train` does."""

    def save(memory):
        options = {"size": "digits", "options": {"weights": str(teacher)}, "memory": memory}
        config = zoo.backbones.configure("self-forcing", options, "test")
        backbone = zoo.backbones.create("self-forcing", config, zoo)
        folder = tmp_path / "student"
        backbone.save(backbone.network("student"), folder)
        content = {"run": {"backbone": {"name": "self-forcing", **options}}}
        (folder / "salt_zoo.json").write_text(json.dumps(content))
        return folder

    return save


@pytest.mark.parametrize("frames", [1, 9, 10])
def test_an_mp4_has_as_many_frames_as_asked(frames, stream, tmp_path):
    out = tmp_path / "deep" / "a.mp4"
    ended = stream("--frames", frames, "--seed", 3)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == str(out)
    assert lines[1] == f"{frames} frames, {frames / 4:g} s at 4 a second; seed 3"
    assert re.fullmatch(r"first block after [\d.e-]+ s", lines[2])
    assert re.fullmatch(
        r"frames per second: [\d.e+]+ denoising only, [\d.e+]+ end to end", lines[3]
    )
    assert re.fullmatch(r"memory: [\d,]+ bytes", lines[4]) and len(lines) == 5
    assert len(frames_of(out)) == frames and os.listdir(out.parent) == [out.name]


def test_seconds_gif_and_png(stream, tmp_path):
    assert stream("--seconds", 2.5).out.splitlines()[1].startswith("10 frames, 2.5 s")
    assert stream("--frames", 5, out="a.gif").code == 0
    with Image.open(tmp_path / "deep" / "a.gif") as image:
        assert image.n_frames == 5
    assert stream("--frames", 9, out="a.png").code == 0
    assert Image.open(tmp_path / "deep" / "a.png").size == (9 * 132 - 4, 128)


def picture(tmp_path, ended):
    assert ended.code == 0, ended.err
    return np.asarray(Image.open(tmp_path / "deep" / "a.png"))


def test_it_is_the_video_of_salt_zoo_sample(cli, checkpoint, tmp_path):
    student = checkpoint({"name": "full"})
    out = ("--out", tmp_path / "deep" / "a.png", "--checkpoint", student, "--seed", 4)
    sampled = picture(tmp_path, cli("sample", SEVEN, *out))
    assert np.array_equal(sampled, picture(tmp_path, cli("stream", SEVEN, *out, "--frames", 9)))
    other = cli("stream", SEVEN, *out, "--frames", 9, "--seed", 5)
    assert not np.array_equal(sampled, picture(tmp_path, other))


def test_the_precision_is_the_one_asked_for(stream, matrix_layers, tmp_path):
    def made(*arguments):
        ended = stream("--frames", 9, *arguments, out="a.png")
        taken = re.search(r"memory: ([\d,]+) bytes", ended.out)[1]
        return picture(tmp_path, ended).astype(float), int(taken.replace(",", ""))

    exact, whole = made()
    assert matrix_layers == {(torch.float32, torch.float32)}  # auto on a CPU
    matrix_layers.clear()
    rough, half = made("--precision", "bf16")
    # held in bf16, but for the time embedding, which is computed in it
    assert matrix_layers == {(d, torch.bfloat16) for d in (torch.float32, torch.bfloat16)}
    assert 0 < np.abs(rough - exact).mean() < 3
    assert half < 0.6 * whole  # the memory is in the policy's precision, too


def test_a_switch_changes_what_comes_after_it(stream, tmp_path):
    def made(*arguments):
        return picture(tmp_path, stream("--frames", 9, *arguments, out="a.png"))

    plain, switched = made(), made("--switch", f"6:{THREE}")
    column = 6 * 132  # of the strip, where the sixth frame begins
    assert np.array_equal(plain[:, :column], switched[:, :column])
    assert not np.array_equal(plain[:, column:], switched[:, column:])
    both = made("--switch", f" 6 : {THREE} ", "--switch", f"3:{SEVEN}")
    assert not np.array_equal(both, plain)


# --- the memory ---


def memory_bytes(ended):
    assert ended.code == 0, ended.err
    return int(ended.out.splitlines()[-1].split()[1].replace(",", ""))


def test_the_memory_can_be_another(stream):
    full = memory_bytes(stream("--frames", 30))
    window = memory_bytes(stream("--frames", 30, "--memory", "window"))
    short = memory_bytes(
        stream("--frames", 30, "--memory", "window", "--set", "backbone.memory.frames=6")
    )
    assert full > window > short
    # keys and values of 4 layers, 6 frames of 16 tokens, 64 wide, and of 3 words
    assert short == 2 * 4 * (6 * 16 + 3) * 64 * 4


def test_options_of_the_checkpoints_memory_stay_with_it(cli, checkpoint, tmp_path):
    student = checkpoint({"name": "window", "frames": 6, "sink": 1, "on_switch": "recache"})

    def run(*arguments):
        out = ("--out", tmp_path / "a.mp4", "--frames", 6, "--nfe", 1)
        return cli("stream", SEVEN, "--checkpoint", student, *out, *arguments)

    own = memory_bytes(run())
    assert memory_bytes(run("--memory", "window")) == own
    # its on_switch is not one of the checkpoint's, its frames are 9
    assert memory_bytes(run("--memory", "ema-sink")) == own + 2 * 4 * 3 * 16 * 64 * 4
    assert memory_bytes(run("--memory", "block-relative")) == own


# --- Ctrl-C ---


@pytest.fixture
def press(monkeypatch):
    """Sends signals when the block of a number (from 0) has been made, or before it is made."""

    def at(block, signals, before=False):
        following, count = Stream.__next__, 0

        def made(self):
            nonlocal count
            pixels = None if before and count == block else following(self)
            if count == block:
                for number in signals:
                    signal.raise_signal(number)
            count += 1
            return pixels

        monkeypatch.setattr(Stream, "__next__", made)

    return at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_stream_without_end(number, press, stream, tmp_path):
    press(4, [number])
    handler = signal.getsignal(number)
    ended = stream("--memory", "window", "--switch", f"300:{THREE}")
    assert (ended.code, ended.err) == (0, "") and "15 frames, 3.75 s" in ended.out
    assert len(frames_of(tmp_path / "deep" / "a.mp4")) == 15
    assert os.listdir(tmp_path / "deep") == ["a.mp4"]
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize(
    ("ending", "number"),
    [(".mp4", signal.SIGINT), (".gif", signal.SIGINT), (".mp4", signal.SIGTERM)],
)
def test_a_signal_keeps_a_part_of_a_given_length(ending, number, press, stream, tmp_path):
    press(1, [number])
    ended = stream("--frames", 30, out=f"a{ending}")
    assert ended.code == 128 + number and "interrupted: 6 of 30 frames were made" in ended.out
    assert os.listdir(tmp_path / "deep") == [f"a{ending}"]


def test_a_second_ctrl_c_does_not_wait_for_the_block(press, stream, tmp_path):
    press(2, [signal.SIGINT] * 3, before=True)
    ended = stream("--memory", "window")
    assert ended.code == 0 and "6 frames" in ended.out
    assert len(frames_of(tmp_path / "deep" / "a.mp4")) == 6


def test_nothing_is_kept_where_nothing_was_made(press, stream, tmp_path):
    press(0, [signal.SIGINT] * 2, before=True)
    ended = stream("--memory", "window")
    assert ended.code == 130 and ended.out == ""
    assert os.listdir(tmp_path / "deep") == []


@pytest.mark.usefixtures("forked")  # it is done beside the others
def test_a_process_that_is_interrupted_leaves_a_playable_file(teacher, tmp_path):
    out = tmp_path / "deep" / "a.mp4"
    options = ["--backbone", "self-forcing", "--size", "digits", "--memory", "window"]
    weights = ["--set", f"backbone.options.weights={teacher}", "--out", str(out), "--nfe", "1"]
    process = Forked("-m", "salt_zoo", "stream", SEVEN, *options, *weights)
    try:
        deadline = time.monotonic() + 240
        while not any(path.stat().st_size for path in out.parent.glob(".*.part.mp4")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        assert not out.exists()  # it has no name before it is whole
        process.send_signal(signal.SIGINT)
        printed, wrong = process.communicate(120)
    finally:
        process.kill()
    assert (process.returncode, wrong) == (0, "")
    assert f"{len(frames_of(out))} frames, " in printed and os.listdir(out.parent) == [out.name]


# --- errors: one line, before anything is made ---


@pytest.fixture
def nothing_is_made(monkeypatch):
    monkeypatch.setattr(Stream, "__next__", None)


WINDOW = ("--memory", "window")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*WINDOW, "--switch", "40"), "write FRAME:PROMPT, for instance --switch 40:"),
        ((*WINDOW, "--switch", f"-1:{THREE}"), "write FRAME:PROMPT"),
        ((*WINDOW, "--switch", f"soon:{THREE}"), "write FRAME:PROMPT"),
        ((*WINDOW, "--switch", "40:"), "write FRAME:PROMPT"),
        ((*WINDOW, "--switch", f"9:{THREE}", "--switch", f"9:{SEVEN}"), "has a prompt already"),
        ((*WINDOW, "--switch", "40:a dog"), "'a dog'"),
        ((*WINDOW, "--switch", f"2:{THREE}"), "the earliest frame for a switch is 3"),
        (("--frames", 10, "--switch", f"10:{THREE}"), "--switch 10: past the end; the last"),
        (("--seconds", 2, "--switch", f"8:{THREE}"), "--switch 8: past the end; the last"),
        (
            ("--memory", "{name: window, frames: 6}"),
            "--memory window --set backbone.memory.frames=6",
        ),
        (("--memory", "windw"), "unknown memory 'windw'; did you mean 'window'"),
        ((*WINDOW, "--set", "backbone.memory.frame=6"), "did you mean 'frames'"),
        ((*WINDOW, "--set", "backbone.memory.frames=4"), "raise its 'frames'"),
        ((*WINDOW, "--set", "backbon.a=4"), "did you mean 'backbone'"),
        ((), "--memory window"),
        (
            (*WINDOW, "--switch", f"3:{THREE}", "--switch", f"5:{SEVEN}"),
            "--switch 3 and --switch 5: both lie in the block of frames 3 to 5",
        ),
        ((*WINDOW, "--switch", f"{'9' * 5000}:{THREE}"), "at most 100,000,000 frames"),
        ((*WINDOW, "--switch", f"\u0663:{THREE}"), "write FRAME:PROMPT"),
        ((*WINDOW, "--set", "backbone.teacher.size=digits"), "does not use it"),
        (("--frames", 10**40), "--frames: at most 100,000,000"),
        (("--seconds", "1e300"), "--seconds 1e+300: at most 2.5e+07"),
        (("--frames", 0), "--frames 0: must be at least 1"),
        (("--seconds", 0), "--seconds 0.0: must be a number above 0"),
        (("--seconds", "inf"), "--seconds inf: must be a number above 0"),
        ((*WINDOW, "--nfe", 0), "--nfe 0: steps: should be greater than or equal to 1"),
        ((*WINDOW, "--device", "tpu"), "unknown device"),
    ],
)
def test_wrong_options(arguments, message, stream, nothing_is_made, tmp_path):
    ended = stream(*arguments)
    assert (ended.code, ended.out) == (2, "") and message in ended.error
    assert not (tmp_path / "deep").exists()


def test_other_mistakes(stream, cli, nothing_is_made, tmp_path):
    assert "'a dog'" in stream(*WINDOW, prompt="a dog").error
    assert "did you mean 'up'" in stream(*WINDOW, prompt="a 7 moving upp slowly").error
    assert "only .mp4 can grow without end" in stream(*WINDOW, out="a.gif").error
    assert ".mp4, .gif or .png" in stream(*WINDOW, out="a.avi").error
    assert "backbone self-forcing" in stream("--frames", 9, backbone="wan").error
    assert "backbone self-forcing" in stream(*WINDOW, backbone="wan").error
    assert "did you mean 'self-forcing'" in stream(*WINDOW, backbone="selfforcing").error
    out = ("--out", tmp_path / "deep" / "a.mp4")
    assert "--backbone self-forcing --size" in cli("stream", SEVEN, *out).error
    assert "no such folder" in cli("stream", SEVEN, *out, "--checkpoint", tmp_path / "no").error
    assert not (tmp_path / "deep").exists()


def test_a_place_that_cannot_be_written(stream, nothing_is_made, tmp_path):
    (tmp_path / "deep").write_text("kept")
    ended = stream("--frames", 3)
    assert ended.code == 2 and "is a file" in ended.error
    assert (tmp_path / "deep").read_text() == "kept"


def test_a_foreign_student_is_streamed(stream, cli, tmp_path):
    place = ("--frames", 6, "--nfe", 1, "--out", tmp_path / "b.png")
    ended = cli("stream", SEVEN, "--checkpoint", CAUSAL, *place)
    assert (ended.code, ended.err) == (0, "")
    alike = (
        "--backbone",
        "self-forcing",
        "--size",
        "digits",
        "--set",
        f"backbone.initial={CAUSAL}",
    )
    cli("stream", SEVEN, *alike, "--frames", 6, "--nfe", 1, "--out", tmp_path / "c.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize("ending", ["mp4", "png"])
def test_a_stream_that_is_not_finite_any_more(ending, stream, monkeypatch, tmp_path):
    going_on = Stream.__next__

    def broken(made):
        pixels = going_on(made)
        return pixels / 0 if made.statistics.frames > 3 else pixels

    monkeypatch.setattr(Stream, "__next__", broken)
    ended = stream("--frames", 9, out=f"a.{ending}")
    assert ended.code == 2 and "from frame 3 on: the video is not finite" in ended.error
    assert os.listdir(tmp_path / "deep") == [f"a.{ending}"]  # what was made before it is kept
    if ending == "mp4":
        assert len(frames_of(tmp_path / "deep" / "a.mp4")) == 3


def test_any_number_of_frames_is_counted_in_blocks(zoo, teacher):
    config = zoo.backbones.configure("self-forcing", {"options": {"weights": str(teacher)}}, "t")
    timeline = Timeline.of(zoo.backbones.create("self-forcing", config, zoo))
    for frames in (0, 1, 3, 4, 9, 10, 10**40):
        count = timeline.count(frames)
        assert timeline.pixels(count) >= frames and (
            not count or timeline.pixels(count - 1) < frames
        )
