"""The digits: prompts, paths and splits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo_digits.data import (
    COMMANDS,
    DIGIT,
    DIRECTIONS,
    FRAMES,
    GRID,
    SIZE,
    SPEEDS,
    SPLITS,
    Digits,
    images,
    parse,
    path,
    starts,
)

commands = st.sampled_from(COMMANDS)


def test_there_are_160_prompts_and_each_reads_back():
    assert len(COMMANDS) == len(set(map(str, COMMANDS))) == 160
    assert all(parse(str(command)) == command for command in COMMANDS)


def test_splits_share_no_image_and_hold_every_class():
    seen = set()
    for split in SPLITS:
        pictures, classes = images(split)
        rows = {picture.numpy().tobytes() for picture in pictures}
        assert not rows & seen
        seen |= rows
        assert all(classes)
    assert sum(len(images(split)[0]) for split in SPLITS) == 1797


@given(commands)
def test_paths_stay_on_grid_and_canvas_and_move_as_told(command):
    for start in starts(command.direction):
        corners = path(command.direction, command.speed, start)
        assert corners.shape == (FRAMES, 2)
        assert (corners % GRID == 0).all() and corners.min() >= 0
        assert corners.max() <= SIZE - DIGIT
        first = corners[SPEEDS[command.speed]] - corners[0]
        assert tuple(first // GRID) == DIRECTIONS[command.direction]  # the first move is no bounce


def test_a_path_tells_its_command_from_all_others():
    tracks: dict[bytes, tuple[str, str]] = {}
    for direction in DIRECTIONS:
        for speed in SPEEDS:
            for start in starts(direction):
                corners = path(direction, speed, start).astype(float)
                key = (corners - corners.mean(0)).round(6).tobytes()
                assert tracks.setdefault(key, (direction, speed)) == (direction, speed)


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 6))
def test_a_row_depends_on_its_own_key_only(seed, count, first):
    rows = range(first, first + count)
    whole = Digits().sample(KeyedRNG(seed, ("t",), range(first + count)), "train")
    part = Digits().sample(KeyedRNG(seed, ("t",), rows), "train")
    assert part.prompts == whole.prompts[first:]
    assert torch.equal(part.video, whole.video[first:])


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a 7 moving upp slowly", "did you mean 'up'"),
        ("a 11 moving up slowly", "unknown word '11'"),
        ("a 7 moving up fast", "unknown word 'fast'"),
        ("seven moving up", "for instance"),
    ],
)
def test_a_prompt_that_is_not_understood_is_one_line(prompt, said):
    with pytest.raises(ZooError) as caught:
        parse(prompt)
    assert said in str(caught.value) and "\n" not in str(caught.value)
