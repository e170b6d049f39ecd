"""Prompts from the files that people have: lines of text, or a column of a table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.io.files.regular import check_regular, expanded

#: A table's column of prompts, where none is named: the first of these that it has.
COLUMNS = ("prompt", "prompt_en", "caption", "text")
#: A table's column of first frames, likewise; `image_name` is that of VBench's image-to-video list.
IMAGE_COLUMNS = ("image", "image_path", "image_name", "first_frame")
#: Lines end as editors end them. A line separator of Unicode or a form feed is a part of a prompt,
#: to which `str.splitlines` would put an end.
_LINE_END = re.compile(r"\r\n|\n|\r")
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


def read_prompt_file(file: Path, column: str | None = None) -> list[str]:
    """The prompts of a file in their order, doubles among them; never an empty one.

    A text file has one a line. `.csv`, `.tsv` (with a header), `.json`, `.jsonl` and `.parquet` are
    tables; JSON may be texts alone, too. A folder is a data set of the hub, of whose tables those
    of the training split are read, or all where none is named so.

    Args:
        file: UTF-8, with a byte order mark or without.
        column: of a table; None is the only one, or one of `COLUMNS`.

    Raises:
        ZooError: the file is missing or damaged, has no prompts, or not that column.
    """
    file = expanded(file)
    if file.is_dir():
        return [prompt for one in _tables_of(file) for prompt in read_prompt_file(one, column)]
    ending = file.suffix.lower()
    if ending not in _TABLES and column is not None:
        raise ZooError(f"{file}: is read as lines of text, which have no column {column!r}")
    if ending not in _TABLES:
        return _lines(file, _text(file))
    rows = _parquet(file, column) if ending == ".parquet" else _table(file, _text(file), ending)
    prompts = [_prompt(file, place, row, column) for place, row in enumerate(rows, 1)]
    found = [prompt for prompt in prompts if prompt]
    if not found:
        raise ZooError(f"{file}: holds no prompt")
    return found


def read_prompts_and_images(
    file: Path, column: str | None = None, image_column: str | None = None
) -> list[tuple[str, Path]]:
    """The prompts of a table, each with its first frame's file, in their order.

    Args:
        file: `.csv`, `.tsv`, `.json`, `.jsonl` or `.parquet`; paths in it are relative to its
            folder.
        column: of prompts; None is one of `COLUMNS`.
        image_column: of first frames; None is one of `IMAGE_COLUMNS`.

    Raises:
        ZooError: the file is missing, damaged, no table, or a row lacks either.
    """
    file = expanded(file)
    ending = file.suffix.lower()
    if file.is_dir() or ending not in _TABLES:
        raise ZooError(
            f"{file}: has no column of first frames; give a table ({', '.join(_TABLES)}) or one "
            "--image for all"
        )
    wanted = (image_column,) if image_column else IMAGE_COLUMNS
    rows = (
        _parquet(file, column, wanted)
        if ending == ".parquet"
        else _table(file, _text(file), ending)
    )
    found = []
    for place, row in enumerate(rows, 1):
        prompt = _prompt(file, place, row, column)
        known = (
            {str(name).strip().lower(): name for name in row} if isinstance(row, Mapping) else {}
        )
        chosen = next((known[name.lower()] for name in wanted if name.lower() in known), None)
        if chosen is None:
            raise ZooError(
                f"{file}, row {place}: has no column {' or '.join(map(repr, wanted))} with the "
                "prompt's first frame; name it with --image-column, or give one --image for all"
            )
        value = row[chosen]
        if not isinstance(value, str) or not value.strip():
            raise ZooError(
                f"{file}, row {place}: its {chosen!r} is {shown(str(value), 30)}, not the path of "
                "an image"
            )
        found.append((prompt, file.parent / expanded(value.strip())))
    if not found:
        raise ZooError(f"{file}: holds no prompt")
    return found


def _tables_of(folder: Path) -> list[Path]:
    """The tables of a data set of the hub, by name."""
    inner = (path for path in folder.rglob("*") if path.suffix.lower() in _TABLES)
    files = sorted(path for path in inner if not path.relative_to(folder).parts[0].startswith("."))
    for ending in (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv"):  # not .json: infos and configs
        if found := [path for path in files if path.suffix.lower() == ending]:
            training = [p for p in found if "train" in p.relative_to(folder).as_posix().lower()]
            return training or found
    raise ZooError(
        f"{folder}: holds no table of prompts (.parquet, .jsonl, .csv, .tsv); name a file, or the "
        "folder of a data set"
    )


def _text(file: Path) -> str:
    try:
        check_regular(file, "give a file of prompts")
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ZooError(f"{file}: there is no such file") from None
    except OSError as error:
        raise ZooError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ZooError(
            f"{file}: not a text file in UTF-8 ({error.reason} at byte {error.start}); save it as "
            "UTF-8"
        ) from None
    if "\0" in text:
        raise ZooError(f"{file}: not a text file (it has a zero byte)")
    return text


def _lines(file: Path, text: str) -> list[str]:
    lines = [line.strip() for line in _LINE_END.split(text)]
    found = [line for line in lines if line]
    if not found:
        raise ZooError(f"{file}: holds no prompt")
    if _is_json(text) or all(_is_json(line) for line in found):
        raise ZooError(f"{file}: holds JSON, not a prompt a line; name it .json or .jsonl")
    cells = [cell.strip().strip('"').lower() for cell in re.split("[,;\t]", found[0])]
    if len(found) > 1 and any(cell in COLUMNS for cell in cells):
        raise ZooError(
            f"{file}: its first line, {shown(found[0], 40)}, is a table's header, not a prompt; "
            "name it .csv or .tsv"
        )
    return found


def _is_json(text: str) -> bool:
    """Whether this is an object or a list; a prompt may well be a number or in quotes."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _table(file: Path, text: str, ending: str) -> Iterable[Any]:
    if ending in (".csv", ".tsv"):
        return _csv(file, text, ending)
    try:
        if ending == ".json":
            content = json.loads(text)
        else:
            content = [json.loads(line) for line in _LINE_END.split(text) if line.strip()]
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:100]
        raise ZooError(f"{file}: incomplete or invalid JSON ({why})") from None
    if isinstance(content, dict) and len(content) == 1:
        content = next(iter(content.values()))  # {"prompts": [...]}
    if not isinstance(content, list):
        raise ZooError(f"{file}: must hold a list of prompts, or of objects with one each")
    return content


def read_csv(file: Path) -> list[dict[str, str]]:
    """The rows of a table (.csv or .tsv), by the names in its first line.

    Raises:
        ZooError: it is missing, no text, incomplete, or has a row that is longer than the first.
    """
    return _csv(file, _text(file), file.suffix.lower())


def _csv(file: Path, text: str, ending: str) -> list[dict[str, str]]:
    head = _LINE_END.split(text, maxsplit=1)[0]
    mark = "\t" if ending == ".tsv" else max(",;\t", key=head.count)
    try:
        with _long_fields(len(text)):
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
    except csv.Error as error:
        raise ZooError(f"{file}: not a complete table ({error})") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return []
    header = [name.strip() for name in rows[0]]
    if twice := {name for name in header if name and header.count(name) > 1}:
        raise ZooError(f"{file}: has the column {min(twice)!r} twice")
    for row in rows[1:]:
        if len(row) > len(header):
            raise ZooError(
                f"{file}: a row has {len(row)} columns, the header {len(header)} (it begins with "
                f"{shown(row[0], 40)}); a prompt with a comma needs quotes"
            )
    return [dict(zip_longest(header, row, fillvalue="")) for row in rows[1:]]


@contextmanager
def _long_fields(most: int) -> Iterator[None]:
    """A prompt may be longer than the 131,072 letters that `csv` takes."""
    before = csv.field_size_limit(max(most, csv.field_size_limit()))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(file: Path, column: str | None, beside: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows with their prompt alone and what is named `beside` it, where there is a column of
    that name: tables of hub data sets hold videos, too."""
    import pyarrow.parquet

    if not file.is_file():
        raise ZooError(f"{file}: there is no such file")
    try:
        names = pyarrow.parquet.read_schema(file).names
        chosen = column or _column(dict.fromkeys(names))
        own = {name.lower() for name in beside}
        some = [chosen, *(name for name in names if name.lower() in own)]
        table = pyarrow.parquet.read_table(file, columns=some if chosen in names else None)
        rows: list[dict[str, Any]] = table.to_pylist()
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        words = " ".join(str(error).split())[:100]
        raise ZooError(f"{file}: an incomplete or corrupt parquet file ({words})") from None
    return rows


def _prompt(file: Path, place: int, row: Any, column: str | None) -> str:
    where = f"{file}, row {place}"
    if isinstance(row, str) and column is None:
        return row.strip()
    if not isinstance(row, Mapping):
        raise ZooError(f"{where}: is a {type(row).__name__}, not a prompt or an object with one")
    chosen = column or _column(row)
    if chosen is None or chosen not in row:
        known = ", ".join(shown(str(name), 30) for name in list(row)[:8])
        wanted = repr(column) if column else " or ".join(map(repr, COLUMNS))
        raise ZooError(
            f"{where}: has no column {wanted} but {known}; rename the one with the prompts to "
            "'prompt', or name it ('salt-zoo sample' has --column)"
        )
    value = row[chosen]
    if not isinstance(value, str) or not value.strip():
        raise ZooError(f"{where}: its {chosen!r} is {shown(str(value), 30)}, not a prompt")
    return value.strip()


def _column(row: Mapping[str, Any]) -> str | None:
    known = {str(name).strip().lower(): name for name in row}
    return next((known[name] for name in COLUMNS if name in known), None)
