"""Videos of real handwritten digits that move as their prompt says.

scikit-learn's 1,797 scanned 8x8 digits, split by digit image, on a 16x16 canvas, 9 frames unless
more are asked for. A prompt names the digit, one of 8 directions and one of 2 speeds ("a 7 moving
up-left slowly"): 160 prompts.
The digit moves on the 4-pixel grid of the network's patches and bounces at the borders; its first
move is never a bounce, so that the path tells the command apart from all others.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from salt_zoo.core.base.errors import ZooError, did_you_mean, shown
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.protocols import Sample
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import NoOptions

FRAMES, SIZE, DIGIT, GRID = 9, 16, 8, 4
CELLS = (SIZE - DIGIT) // GRID + 1  # places for the digit along one side

DIRECTIONS = {
    "up": (-1, 0),
    "down": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
    "up-left": (-1, -1),
    "up-right": (-1, 1),
    "down-left": (1, -1),
    "down-right": (1, 1),
}
#: Frames that pass between two moves.
SPEEDS = {"quickly": 1, "slowly": 2}

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Command:
    """What a prompt asks for."""

    digit: int
    direction: str
    speed: str

    def __str__(self) -> str:
        return f"a {self.digit} moving {self.direction} {self.speed}"


COMMANDS = tuple(
    Command(digit, direction, speed)
    for digit in range(10)
    for direction in DIRECTIONS
    for speed in SPEEDS
)


def parse(prompt: str) -> Command:
    """The command of a prompt; a ZooError names the word that is not understood."""
    words = prompt.split()
    if len(words) != 5 or words[0] != "a" or words[2] != "moving":
        raise ZooError(
            f"prompt {shown(prompt)}: digits prompts read 'a DIGIT moving DIRECTION SPEED', "
            f"for instance {str(COMMANDS[0])!r}"
        )
    _, digit, _, direction, speed = words
    vocabulary = ([*map(str, range(10))], [*DIRECTIONS], [*SPEEDS])
    for word, known in zip((digit, direction, speed), vocabulary, strict=True):
        if word not in known:
            hint = did_you_mean(word[:60], known)
            raise ZooError(f"prompt {shown(prompt)}: unknown word {shown(word, 30)}; {hint}")
    return Command(int(digit), direction, speed)


def starts(direction: str) -> list[tuple[int, int]]:
    """The cells (row, column) from which the first move in `direction` stays on the canvas."""

    def allowed(move: int) -> range:
        return {-1: range(1, CELLS), 0: range(CELLS), 1: range(CELLS - 1)}[move]

    down, right = DIRECTIONS[direction]
    return [(row, column) for row in allowed(down) for column in allowed(right)]


def path(
    direction: str, speed: str, start: tuple[int, int], frames: int = FRAMES, first: int = 0
) -> np.ndarray:
    """Pixel position (row, column) of the digit's corner in every frame: `[frames, 2]`.

    The motion goes on bouncing however long it is followed; `first` is the frame of the whole video
    with which the clip begins.
    """

    def bounce(cell: int) -> int:
        period = 2 * (CELLS - 1)
        cell %= period
        return min(cell, period - cell)

    rows = []
    for frame in range(first, first + frames):
        moves = frame // SPEEDS[speed]
        rows.append(
            [
                GRID * bounce(cell + move * moves)
                for cell, move in zip(start, DIRECTIONS[direction], strict=True)
            ]
        )
    return np.array(rows)


@functools.cache
def images(split: str) -> tuple[Tensor, tuple[tuple[int, ...], ...]]:
    """The split's digit images `[N, 8, 8]` in [0, 1], and the indices of each of the 10 classes.

    Every fifth image of a class is held out: for validation and test by turns.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    pixels, labels = load_digits(return_X_y=True)
    kept: list[int] = []
    for digit in range(10):
        of_class = np.flatnonzero(labels == digit)
        place = np.arange(len(of_class))
        chosen = {
            "train": place % 5 != 4,
            "validation": place % 10 == 4,
            "test": place % 10 == 9,
        }[split]
        kept.extend(of_class[chosen].tolist())
    kept.sort()
    classes = tuple(
        tuple(i for i, index in enumerate(kept) if labels[index] == digit) for digit in range(10)
    )
    images = torch.tensor(pixels[kept] / 16.0, dtype=torch.float32)
    return rearrange(images, "n (h w) -> n h w", h=DIGIT), classes


def render(image: Tensor, positions: np.ndarray) -> Tensor:
    """One video `[1, F, 16, 16]` of an 8x8 image on a path of F corner positions."""
    video = torch.zeros(1, len(positions), SIZE, SIZE)
    for frame, (row, column) in enumerate(positions):
        video[0, frame, row : row + DIGIT, column : column + DIGIT] = image
    return video


class Digits:
    """The dataset `digits`. All three splits share the prompts; the digit images are disjoint."""

    version = 1

    def __init__(self, config: NoOptions | None = None, zoo: Zoo | None = None) -> None:
        pass

    def prompts(self, split: str) -> list[str]:
        return [str(command) for command in COMMANDS]

    def sample(self, rng: KeyedRNG, split: str, videos: bool = True) -> Sample:
        chosen = rng.randint(len(COMMANDS), "command")
        prompts = [str(COMMANDS[i]) for i in chosen]
        return Sample(prompts, self.real(prompts, rng, split) if videos else None)

    def real(
        self, prompts: Sequence[str], rng: KeyedRNG, split: str, frames: int | None = None
    ) -> Tensor:
        pictures, classes = images(split)
        rows = []
        # one draw a row decides image and start together
        for prompt, number in zip(prompts, rng.randint(2**31, "digit and start"), strict=True):
            command = parse(prompt)
            candidates = classes[command.digit]
            places = starts(command.direction)
            image = pictures[candidates[number % len(candidates)]]
            start = places[number // len(candidates) % len(places)]
            corners = path(command.direction, command.speed, start, frames or FRAMES)
            rows.append(render(image, corners))
        return torch.stack(rows)

    def fingerprint(self) -> dict[str, str]:
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(images(split)[0].numpy().tobytes())
        return {"digits": digest.hexdigest()[:16]}
