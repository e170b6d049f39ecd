"""Which code numbers come from: the version that a part declares, or else its plugin's files.

A part (method, objective, memory, backbone, size, dataset, metric) may declare an integer
`version` on its class, to be raised whenever its numbers change. Results then outlive edits that
change none. Without one, every edit of its plugin's files counts as a change.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from salt_zoo.plugin.files import FILE
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registry import Entry

Made = TypeVar("Made")


class Versions:
    """The versions of the parts of a zoo, as their files are now; each is read once."""

    def __init__(self, zoo: Zoo) -> None:
        self.zoo = zoo
        self._digests: dict[str, str] = {}

    def used_by(self, make: Callable[[], Made]) -> tuple[Made, dict[str, list[str]]]:
        """What `make` makes, and the versions of all parts that it looked up on its way."""
        with self.zoo.watching() as seen:
            made = make()
        return made, {f"{entry.kind} {entry.name}": self.of(entry) for entry in seen}

    def of(self, entry: Entry) -> list[str]:
        """What identifies the code of one part.

        The versions that its class and those that it derives from declare. A class inherits the
        version of another one of its own package only: if there is none, the files of its plugin
        stand beside those of the others.
        """
        factory = entry.load()
        versions = declared(factory)
        found = [f"{name} {number}" for name, number in versions.items()]
        if not any(_top(name) == _top(factory.__module__) for name in versions):
            modules = {self.zoo.module_of(entry.plugin), factory.__module__}
            found += sorted({f"files {self._files(name)}" for name in modules if name})
        return found

    def _files(self, module: str) -> str:
        """A digest of the source of a module's distribution: its package's files, or its own."""
        top = _top(module)
        if top not in self._digests:
            self._digests[top] = _digest(top)
        return self._digests[top]


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
    found = {Path(file) for file in files if isinstance(file, str)}
    return sorted(path for path in found if path.parent == folder and path.is_file())


def _digest_of(paths: list[tuple[Path, Path]]) -> str:
    content = hashlib.sha256()
    for name, path in paths:
        content.update(f"{name.as_posix()}\0".encode())
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()[:16]


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if path.is_file())
