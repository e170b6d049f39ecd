"""Which videos are made of which prompts, and the file that each goes to."""

from __future__ import annotations

import argparse
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from salt_zoo.core.base.errors import ZooError, shown

#: `index`: `00003-a-red-fox.mp4`; `vbench`: `a red fox-0.mp4`, which VBench finds by its prompt.
Names = Literal["index", "vbench"]

#: Bytes that a file's name may have on the usual file systems.
_LONGEST = 255
#: Letters of a prompt in a name by index.
_SLUG = 60
#: Kinds of letters that no name should have: controls, surrogates, separators of lines.
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")
#: More in one picture are not to be seen.
MOST_IN_ONE = 64


@dataclass(frozen=True)
class Video:
    """One video of a prompt; the how-manieth of that prompt decides its noise, not its place."""

    prompt: str
    occurrence: int
    #: Of the prompt in the list, and of the video among those of this place.
    place: int
    take: int


def videos_of(prompts: Sequence[str], per_prompt: int) -> list[Video]:
    """`per_prompt` videos of each prompt; one that is listed twice goes on counting."""
    seen: Counter[str] = Counter()
    found = []
    for place, prompt in enumerate(prompts):
        for take in range(per_prompt):
            found.append(Video(prompt, seen[prompt], place, take))
            seen[prompt] += 1
    return found


def file_names(videos: Sequence[Video], names: Names, ending: str) -> list[str]:
    """A name for each video, all different, none of which leaves its folder.

    Raises:
        ZooError: VBench's names are asked for, and a prompt cannot be a file's name.
    """
    if names == "vbench":
        return [_vbench(video, ending) for video in videos]
    width = max(5, len(str(videos[-1].place))) if videos else 5
    several = any(video.take for video in videos)
    found = []
    for video in videos:
        words = [f"{video.place:0{width}d}", slug(video.prompt), str(video.take) * several]
        found.append("-".join(word for word in words if word) + ending)
    return found


def slug(prompt: str) -> str:
    """The plain letters of a prompt's beginning, for a name; empty where it has none.

    >>> slug("A red fox, über snow!")
    'a-red-fox-uber-snow'
    """
    plain = unicodedata.normalize("NFKD", prompt[: 4 * _SLUG])
    letters = "".join(one for one in plain if not unicodedata.combining(one)).lower()
    return re.sub("[^a-z0-9]+", "-", letters)[:_SLUG].strip("-")


def _vbench(video: Video, ending: str) -> str:
    name = f"{video.prompt}-{video.occurrence}{ending}"
    bad = next((one for one in name if one == "/" or unicodedata.category(one) in _UNSEEN), "")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = _LONGEST + 1
    if bad or length > _LONGEST:
        what = f"it has {bad!r}" if bad else f"it would be longer than {_LONGEST} bytes"
        raise ZooError(
            f"prompt {shown(video.prompt)}: cannot be a file's name ({what}), as --names vbench "
            "wants it; take --names index"
        )
    return name


class Folder(type(Path())):  # type: ignore[misc]
    """A path that was written with a / at its end, which `Path` forgets."""


def out_path(text: str) -> Path:
    """The argument of `--out`; an empty one would be the folder in which one happens to be."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a file or a folder")
    return Folder(text) if text.endswith("/") else Path(text)


def check_one_file(out: Path, count: int) -> None:
    """Refuse so many videos in one picture that none of them can be seen.

    Raises:
        ZooError: there are more than `MOST_IN_ONE`.
    """
    if count > MOST_IN_ONE:
        raise ZooError(
            f"--out {out}: one file shows at most {MOST_IN_ONE} videos side by side, not {count}; "
            "name a folder (--out FOLDER/), which gets a file for each"
        )
