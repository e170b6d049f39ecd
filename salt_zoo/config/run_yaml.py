"""`run.yaml`: what a run's folder is for, from its beginning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.ranks import is_main_process
from salt_zoo.io.files.storage import atomic_file, write_text
from salt_zoo.io.yaml import dump_yaml

NAME = "run.yaml"


@contextmanager
def written(content: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Write a resolved run (`Resolved.plain`), from which `salt-zoo train` makes the same; one that
    is refused in the block leaves what was there."""
    if not is_main_process():
        yield
        return
    path = folder / NAME
    before = path.read_bytes() if path.is_file() else None
    text = dump_yaml(dict(content), sort_keys=False)
    write_text(path, f"# The run in this folder, for: salt-zoo train {NAME}\n{text}")
    try:
        yield
    except ZooError:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            with atomic_file(path) as draft:
                draft.write_bytes(before)
        raise
