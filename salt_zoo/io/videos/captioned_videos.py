"""Videos with captions as people have them: a folder, a table, or webdataset's tar files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.io.files.regular import check_regular, expanded
from salt_zoo.io.prompt_files import COLUMNS, read_csv

VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif")
#: Columns of a table with the video's path, relative to the table.
PATHS = ("path", "video", "file", "file_name")


@dataclass(frozen=True)
class CaptionedVideo:
    """A video in a file, or in `size` bytes of one from `offset` on (a tar's)."""

    caption: str
    file: Path
    offset: int = 0
    size: int | None = None
    name: str = ""

    def open(self) -> BinaryIO:
        """Its bytes."""
        if self.size is None:
            return open(self.file, "rb")
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))

    def __str__(self) -> str:
        return f"{self.file}, {self.name}" if self.name else str(self.file)


def find_videos(place: Path) -> list[CaptionedVideo]:
    """The videos of a place by name, or in a table's order.

    Args:
        place: a folder of videos, each with a `.txt` of the same name beside it (or of webdataset's
            tar files); one tar file with `NAME.mp4` and `NAME.txt` or `NAME.json`; or a table (.csv
            or .tsv) with the columns `path` and `caption`.

    Raises:
        ZooError: there is no such place, no video in it, or one that has no caption.
    """
    place = expanded(place)
    if not place.exists():
        raise ZooError(f"{place}: there is no such file or folder; see videos")
    try:
        return _find(place)
    except OSError as error:  # a folder in a file's place, a file that may not be read
        raise ZooError(f"{error.filename or place}: cannot be read ({error.strerror})") from None


def _find(place: Path) -> list[CaptionedVideo]:
    if not place.is_dir():
        check_regular(place, "give a folder of videos, a .csv or .tsv, or a .tar")
    if place.is_dir():
        tars = sorted(place.glob("*.tar"))
        found = [one for tar in tars for one in _tar(tar)] if tars else list(_folder(place))
    elif place.suffix.lower() == ".tar":
        found = list(_tar(place))
    elif place.suffix.lower() in (".csv", ".tsv"):
        found = list(_table(place))
    else:
        raise ZooError(f"{place}: give a folder of videos, a .csv or .tsv, or a .tar")
    if not found:
        raise ZooError(f"{place}: holds no video ({', '.join(VIDEOS)})")
    return found


def _folder(folder: Path) -> Iterator[CaptionedVideo]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in VIDEOS:
            continue
        check_regular(path, "leave it out")
        text = path.with_suffix(".txt")
        try:
            check_regular(text, "write the caption to a text file")
            yield CaptionedVideo(_caption(text.read_text(encoding="utf-8-sig"), str(text)), path)
        except FileNotFoundError:
            raise ZooError(f"{path}: has no caption; write it to {text.name} beside it") from None
        except UnicodeDecodeError:
            raise ZooError(f"{text}: not a text file in UTF-8; save it as UTF-8") from None


def _table(file: Path) -> Iterator[CaptionedVideo]:
    rows = read_csv(file)
    names = list(rows[0]) if rows else []
    path = next((name for name in PATHS if name in names), None)
    caption = next((name for name in COLUMNS if name in names), None)
    if path is None or caption is None:
        raise ZooError(
            f"{file}: needs the columns 'path' and 'caption'; it has {', '.join(names) or 'none'}"
        )
    for place, row in enumerate(rows, 1):
        video = file.parent / row[path]
        if not video.is_file():
            raise ZooError(f"{file}, row {place}: there is no file {video}")
        yield CaptionedVideo(_caption(row[caption], f"{file}, row {place}"), video)


def _tar(file: Path) -> Iterator[CaptionedVideo]:
    """The samples of a webdataset tar: its members of one name; only captions are read."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    texts: dict[str, dict[str, tuple[str, bytes]]] = {}
    check_regular(file, "leave it out")
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key, ending = f"{folder}/{stem}" if folder else stem, f".{ending.lower()}"
                if not member.isfile():
                    continue
                if ending in VIDEOS:
                    samples.setdefault(key, {})[ending] = member.offset_data, member.size
                elif ending in (".txt", ".json"):
                    content = tar.extractfile(member)
                    assert content is not None
                    where = f"{file}, {member.name}"
                    texts.setdefault(key, {})[ending] = where, content.read()
    except (tarfile.TarError, EOFError) as error:
        raise ZooError(f"{file}: an incomplete or corrupt tar file ({error})") from None
    for key, endings in samples.items():
        (offset, size), ending = next((value, name) for name, value in endings.items())
        if key not in texts:
            raise ZooError(f"{file}, {key}{ending}: has no caption ({key}.txt or {key}.json)")
        yield CaptionedVideo(_member_caption(texts[key]), file, offset, size, f"{key}{ending}")


def _member_caption(texts: Mapping[str, tuple[str, bytes]]) -> str:
    """That of the text file, beside which the JSON may hold anything, else that of the JSON."""
    ending = ".txt" if ".txt" in texts else ".json"
    where, content = texts[ending]
    try:
        text = content.decode("utf-8-sig")
        if ending == ".txt":
            return _caption(text, where)
        found = json.loads(text)
        value = next((found[name] for name in COLUMNS if name in found), "")
    except (ValueError, TypeError, RecursionError) as error:
        raise ZooError(f"{where}: cannot be read ({shown(str(error))})") from None
    if not isinstance(value, str):
        raise ZooError(f"{where}: the caption is {shown(str(value), 30)}, not text")
    return _caption(value, where)


def _caption(text: str, where: str) -> str:
    caption = " ".join(text.split())
    if "\0" in caption:
        raise ZooError(f"{where}: not a text file (it has a zero byte)")
    if not caption:
        raise ZooError(f"{where}: the caption is empty")
    return caption
