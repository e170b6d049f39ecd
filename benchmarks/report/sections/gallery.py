"""Videos for a report: sheets of frames that a style sheet plays, and an animation for Markdown.

A sheet holds a video's frames side by side. Shown whole it is the static strip; shown one frame at
a time by a stepped CSS animation it is the player, without a script, and all players of a page keep
the same time.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.evaluate.pictures import FRAMES, HEIGHT, Pictures
from benchmarks.report.model.model import Setting, View
from benchmarks.study.entries.baselines import FULL_BASELINES, STEPPED_BASELINES

FRAMES_PER_SECOND = 4
#: Pixels of a sheet's width, which the format WebP bounds.
WIDEST = 16_000
#: Bytes of all sheets together; fewer prompts, then smaller frames are shown to keep it.
BUDGET = 2_200_000


@dataclass(frozen=True)
class Sheet:
    """One video's frames side by side, as a data URI."""

    uri: str
    frames: int
    width: int
    height: int


@dataclass(frozen=True)
class Player:
    name: str
    arm: str
    nfe: int | None
    sheet: Sheet


@dataclass(frozen=True)
class Card:
    """All videos of one prompt: baselines beside a grid of arms by NFE."""

    prompt: str
    nfes: list[int]
    baselines: list[Player]
    lines: list[tuple[str, list[Player | None]]]

    @property
    def column(self) -> int:
        """The column of 4 steps, or of the nearest number; the one that strips show."""
        return min(range(len(self.nfes)), key=lambda i: abs(math.log2(self.nfes[i] / 4)), default=0)

    def players(self) -> list[Player]:
        return [*self.baselines, *(p for _, line in self.lines for p in line if p)]


Videos = Mapping[tuple[str, int | None], np.ndarray]


def videos_of(pictures: Pictures, setting: Setting) -> Videos:
    """`[K, channels, frames, height, width]` by arm and NFE: the first seed's, the baselines' with
    their own sampler."""
    videos: dict[tuple[str, int | None], np.ndarray] = {}
    for (arm, backbone, nfe, sampler, length), pixels in pictures.items():
        if length != "short" or (arm == "initial" and backbone != setting.backbone):
            continue  # another backbone's student
        if arm in ("real", *FULL_BASELINES):
            videos.setdefault((arm, None), pixels)
        elif (backbone, sampler) == (setting.backbone, setting.sampler):
            videos.setdefault((arm, int(nfe)), pixels)
    return videos


def cards(videos: Videos, view: View, prefix: str) -> list[Card]:
    """A card for as many prompts as there are videos of and the budget lets in."""
    count = min((len(pixels) for pixels in videos.values()), default=0)
    shown: list[Card] = []
    for height in (HEIGHT, 64, 40):
        shown = []
        size = 0
        for index, prompt in enumerate(view.results.prompts[:count]):
            card = _card(videos, view, index, prompt, f"{prefix}{index}", height)
            size += sum(len(player.sheet.uri) for player in card.players())
            if size > BUDGET:
                break
            shown.append(card)
        if len(shown) >= min(count, 2):
            break
    return shown


def _card(
    videos: Videos, view: View, index: int, prompt: str, prefix: str, height: int
) -> Card:  # fmt: skip
    def player(arm: str, nfe: int | None) -> Player | None:
        if (arm, nfe) not in videos:
            return None
        name = f"{prefix}_{order.index(arm)}_{nfe or 0}"
        return Player(name, arm, nfe, sheet(videos[arm, nfe][index], height))

    free = ["real", *FULL_BASELINES]
    order = [*free, *STEPPED_BASELINES, *view.arms]
    baselines = [shown for arm in free if (shown := player(arm, None))]
    nfes = [nfe for nfe in view.nfes if any(key[1] == nfe for key in videos)]
    lines = [(arm, [player(arm, nfe) for nfe in nfes]) for arm in order[len(free) :]]
    return Card(prompt, nfes, baselines, [line for line in lines if any(line[1])])


def sheet(video: np.ndarray, height: int = HEIGHT, most: int = FRAMES) -> Sheet:
    """uint8 `[channels, frames, height, width]` as a sheet; small frames keep every pixel."""
    shown = min(video.shape[2], height) / video.shape[2]
    most = min(most, max(1, int(WIDEST / (video.shape[3] * shown + 1))))
    frames = _frames(video, most)
    if frames[0].height > height:
        size = (max(1, round(frames[0].width * height / frames[0].height)), height)
        frames = [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]
    width, high = frames[0].size
    whole = Image.new(frames[0].mode, (width * len(frames), high))
    for index, frame in enumerate(frames):
        whole.paste(frame, (index * width, 0))
    buffer = io.BytesIO()
    if high <= 32:
        whole.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        whole.save(buffer, "WEBP", quality=80, method=4)
        kind = "webp"
    text = base64.b64encode(buffer.getvalue()).decode()
    return Sheet(f"data:image/{kind};base64,{text}", len(frames), width, high)


def chosen_frames(frames: int, most: int) -> np.ndarray:
    """Indices of at most `most` frames, evenly spread from the first to the last."""
    return np.linspace(0, frames - 1, min(frames, most)).round().astype(int)


def _frames(video: np.ndarray, most: int = FRAMES) -> list[Image.Image]:
    pixels = video[:, chosen_frames(video.shape[1], most)].transpose(1, 2, 3, 0)
    if pixels.shape[-1] == 3:
        return [Image.fromarray(np.ascontiguousarray(frame)) for frame in pixels]
    return [Image.fromarray(np.ascontiguousarray(frame[..., 0])) for frame in pixels]


def write_animation(videos: Videos, view: View, path: Path, prompts: int = 3) -> None:
    """An animated GIF of all arms by NFE for the first prompts, for where no style sheet plays."""
    shown = min((len(pixels) for pixels in videos.values()), default=0)
    shown = min(shown, prompts)
    nfes = [nfe for nfe in view.nfes if any(key[1] == nfe for key in videos)]
    arms = [arm for arm in (*STEPPED_BASELINES, *view.arms) if any(key[0] == arm for key in videos)]
    arms += [arm for arm in (*FULL_BASELINES, "real") if (arm, None) in videos]
    moving = {key: [_frames(video) for video in pixels[:shown]] for key, pixels in videos.items()}
    first = next(iter(moving.values()))[0]
    high = 48
    wide = round(first[0].width * high / first[0].height)
    font, gap, top = ImageFont.load_default(size=12), 4, 44
    labels = [arm if len(arm) <= 24 else arm[:23] + "…" for arm in arms]
    left = int(max(font.getlength(label) for label in labels)) + 16
    block = len(nfes) * (wide + gap)
    size = (left + shown * (block + 16), top + len(arms) * (high + gap) + 8)
    # one shade for both light and dark surroundings would suit neither: white paper, black ink
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for prompt in range(shown):
        x = left + prompt * (block + 16)
        draw.text((x, 4), _fit(view.results.prompts[prompt], font, block), "#222", font)
        for column, nfe in enumerate(nfes):
            draw.text((x + column * (wide + gap), 24), f"{nfe} NFE", "#777", font)
    for line, label in enumerate(labels):
        draw.text((8, top + line * (high + gap) + high // 2 - 8), label, "#222", font)
    pictures = []
    for frame in range(max(len(video) for of_arm in moving.values() for video in of_arm)):
        picture = canvas.copy()
        for line, arm in enumerate(arms):
            for prompt in range(shown):
                for column, nfe in enumerate(nfes):
                    free = arm in ("real", *FULL_BASELINES)
                    key = (arm, None if free else nfe)
                    if key not in moving or (free and column):
                        continue
                    video = moving[key][prompt]
                    image = video[frame % len(video)].resize((wide, high), _filter(video[0], high))
                    x = left + prompt * (block + 16) + column * (wide + gap)
                    picture.paste(image, (x, top + line * (high + gap)))
        pictures.append(picture.quantize(128, dither=Image.Dither.NONE))
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], loop=0, optimize=True,
        duration=1000 // FRAMES_PER_SECOND,
    )  # fmt: skip


def _filter(image: Image.Image, height: int) -> Image.Resampling:
    return Image.Resampling.NEAREST if image.height < height else Image.Resampling.LANCZOS


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a text as a width in pixels holds."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
