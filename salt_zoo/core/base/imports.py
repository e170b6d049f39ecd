"""Libraries that cannot be imported, in one line: most often for a variable of the environment that
they read as they are (`TORCH_LOGS`, `HF_HUB_DOWNLOAD_TIMEOUT`, `DIFFUSERS_ATTN_BACKEND`)."""

from __future__ import annotations

import os
import re
import traceback

from salt_zoo.core.base.errors import reason, shown, text_of
from salt_zoo.core.base.variables import OFF

#: Top-level packages of this project, but for those of plugins.
_OURS = ("salt_zoo", "benchmarks")


def failed_import(error: BaseException) -> str | None:
    """What of somebody else's cannot be imported, and why, where `error` comes out of that; None
    for all other errors."""
    package = error.name.partition(".")[0] if isinstance(error, ImportError) and error.name else ""
    foreign = bool(package) and not _is_ours(package)
    if foreign and isinstance(error, ModuleNotFoundError):
        return f"the package {package!r} is not installed here ({text_of(error)})"
    for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
        module = str(frame.f_globals.get("__name__", ""))
        if _is_ours(module) or module == "__main__":
            break
        if frame.f_code.co_name == "<module>":
            name = module.partition(".")[0]
            return f"{name} cannot be imported ({reason(error)}){asked_of(error)}"
    if foreign:
        return f"the package {package!r} is of another version than is needed ({text_of(error)})"
    return None


def asked_of(error: BaseException) -> str:
    """The end of a line about an error: the variables of the environment whose names or values are
    words of its message; empty without one. A value that is not there already may be a secret."""
    words = set(re.findall(r"[^\s'\"`,;()\[\]]+", text_of(error)))
    words |= {word.strip(".:") for word in words}
    found = [
        f"{name}={shown(value)}" if value in words else name
        for name, value in sorted(os.environ.items())
        if name in words or (value in words and not _is_usual(value))
    ]
    return f"; is {' or '.join(found[:3])} in the environment right?" if found else ""


def _is_usual(value: str) -> bool:
    """Whether a value is a word of many messages that are not about its variable."""
    return len(value) < 3 or value.isdecimal() or value.lower() in ("true", "yes", "none", *OFF)


def _is_ours(module: str) -> bool:
    package = module.partition(".")[0]
    return package in _OURS or package.startswith("salt_zoo_")
