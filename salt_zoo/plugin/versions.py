"""Which code and data numbers come from: the version that a part declares, or else its plugin's
files, and the data that its package holds.

A part (method, objective, memory, backbone, size, dataset, metric) may declare an integer
`version` on its class, to be raised whenever its numbers change. Results then outlive edits that
change none. Without one, every edit of its plugin's files counts as a change. A version is about
code alone: data files (weights of a judge, statistics) count by what is in them, except of parts
that give digests of what they read (`fingerprint`).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from salt_zoo.io.files.storage import digest
from salt_zoo.io.known_digests import known_digest
from salt_zoo.plugin.files import FILE
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import Entry

Made = TypeVar("Made")

#: Kinds of parts that say themselves what they read.
FINGERPRINTED = ("backbone", "size", "dataset")
#: Endings of files of a package that hold no data: code, and pages for its reader.
NOT_DATA = (".py", ".pyi", ".pyc", ".so", ".pyd", ".dylib", ".dll", ".md", ".rst")


class Versions:
    """The versions of the parts of a zoo, as their files are now; each is read once."""

    def __init__(self, zoo: Zoo) -> None:
        self.zoo = zoo
        self._digests: dict[str, str] = {}
        self._data_digests: dict[str, str] = {}

    def used_by(self, make: Callable[[], Made]) -> tuple[Made, dict[str, list[str]]]:
        """What `make` makes, and the versions of all parts that it looked up on its way."""
        with self.zoo.watching() as seen:
            made = make()
        return made, {f"{entry.kind} {entry.name}": self.of(entry) for entry in seen}

    def of(self, entry: Entry) -> list[str]:
        """What identifies the code of one part, and the data that comes with it.

        The versions that its class and those that it derives from declare. A class inherits the
        version of another one of its own package only: if there is none, the files of its plugin
        stand beside those of the others. The data files of all these packages follow, if there
        are any.
        """
        factory = entry.load()
        versions = declared(factory)
        found = [f"{name} {number}" for name, number in versions.items()]
        modules = {self.zoo.module_of(entry.plugin), factory.__module__} - {None}
        if not any(_top(name) == _top(factory.__module__) for name in versions):
            found += sorted({f"files {self._files(name)}" for name in modules})
        if entry.kind not in FINGERPRINTED:
            data = {self._data(name) for name in (*modules, *versions)} - {""}
            found += sorted(f"data {name}" for name in data)
        return found

    def _files(self, module: str) -> str:
        """A digest of the source of a module's distribution: its package's files, or its own."""
        top = _top(module)
        if top not in self._digests:
            self._digests[top] = _digest(top)
        return self._digests[top]

    def _data(self, module: str) -> str:
        """A digest of the data files of a module's package; empty if it has none."""
        top = _top(module)
        if top not in self._data_digests:
            files = {name.as_posix(): known_digest(path) for name, path in _data_files(top)}
            self._data_digests[top] = digest(files) if files else ""
        return self._data_digests[top]


def declared(factory: Any) -> dict[str, int]:
    """The integer `version` of every class (or function) that makes a part, by full name."""
    found = {}
    for one in factory.__mro__ if isinstance(factory, type) else (factory,):
        number = getattr(one, "__dict__", {}).get("version")
        if isinstance(number, int) and not isinstance(number, bool):
            found[f"{one.__module__}.{one.__qualname__}"] = number
    return found


def _top(module: str) -> str:
    return module.partition(".")[0]


def _digest(top: str) -> str:
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    if top.startswith(FILE) and file:  # a plugin's file and what it imports from beside it
        paths = [(Path(path.name), path) for path in _imported_from(Path(file).parent)]
        return _digest_of(paths)
    paths = [(path.relative_to(folder), path) for folder in folders for path in _sources(folder)]
    if not folders and file:
        paths = [(Path(Path(file).name), Path(file))]
    return _digest_of(paths)


def _imported_from(folder: Path) -> list[Path]:
    """The files right in a folder that modules were loaded from."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    of_folder: dict[str, set[str]] = {}  # thousands of files are in hundreds of folders
    for file in files:
        if isinstance(file, str):
            of_folder.setdefault(os.path.dirname(file), set()).add(file)
    found = {Path(file) for name, own in of_folder.items() if Path(name) == folder for file in own}
    return sorted(path for path in found if path.is_file())


def _digest_of(paths: list[tuple[Path, Path]]) -> str:
    content = hashlib.sha256()
    for name, path in paths:
        content.update(f"{name.as_posix()}\0".encode())
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()[:16]


def _data_files(top: str) -> list[tuple[Path, Path]]:
    """The data files of a package, each also by its path in it.

    None of a plugin in one file, which may lie beside anything: its options name what it reads.
    """
    module = sys.modules.get(top)
    if top.startswith(FILE) or module is None or module.__file__ is None:
        return []
    found = []
    for folder in map(Path, getattr(module, "__path__", ())):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
            if not hidden and path.suffix.lower() not in NOT_DATA and path.is_file():
                found.append((name, path))
    return found


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if path.is_file())
