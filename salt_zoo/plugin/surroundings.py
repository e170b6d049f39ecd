"""What foreign code must leave as it was: standard output, and settings of the whole process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: Read and write one setting.
Setting = tuple[Callable[[], Any], Callable[[Any], Any]]


def _torch_settings() -> dict[str, Setting]:
    """Torch's settings that decide what every network computes, once somebody imported it."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "use_deterministic_algorithms"):  # perhaps half imported
        return {}

    def set_device(device: Any) -> None:
        # naming the CPU would install a mode that looks at every call
        torch.set_default_device(None if str(device) == "cpu" else device)

    return {
        "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "torch's default device": (lambda: str(torch.get_default_device()), set_device),
        "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
        "torch's deterministic mode": (
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
        "torch's threads": (torch.get_num_threads, torch.set_num_threads),
    }


def _first_values() -> dict[str, Any]:
    """With what torch begins, for code that was the first to import it."""
    torch: Any = sys.modules.get("torch")
    return {
        "torch's default dtype": getattr(torch, "float32", None),
        "torch's default device": "cpu",
        "torch's gradient mode": True,
        "torch's deterministic mode": False,
    }


@contextmanager
def settings_kept() -> Iterator[list[str]]:
    """Puts settings back that the block changed. Yields their names, filled in at its end."""
    changed: list[str] = []
    before = {name: read() for name, (read, _) in _torch_settings().items()}
    folder = _folder()
    try:
        yield changed
    finally:
        if folder is not None and _folder() != folder:
            changed.append("the current folder")
            os.chdir(folder)
        after = _torch_settings()
        for name, value in (before or _first_values()).items():
            if name not in after:
                continue
            read, write = after[name]
            if read() != value:
                changed.append(name)
                write(value)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


@contextmanager
def output_kept() -> Iterator[None]:
    """What the block prints goes to standard error, even past Python; both streams are what they
    were at its end, whatever was put in their place."""
    streams = sys.stdout, sys.stderr
    kept = {}
    for number in (1, 2):
        with suppress(OSError):  # it may be closed
            kept[number] = os.dup(number)
    with suppress(Exception):
        sys.stdout.flush()
    sys.stdout = sys.stderr
    if len(kept) == 2:
        os.dup2(kept[2], 1)
    try:
        yield
    finally:
        for stream in {sys.stdout, sys.stderr}:
            with suppress(Exception):  # foreign, or closed
                stream.flush()
        sys.stdout, sys.stderr = streams
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
