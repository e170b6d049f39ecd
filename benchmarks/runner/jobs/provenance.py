"""What a reader needs to trust, or repeat, a study: versions, commit, hardware, digests."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_zoo.io.files.storage import digest
from salt_zoo.plugin.manager import Zoo

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "scikit-learn", "pluggy")


def provenance(
    zoo: Zoo, device: str, inputs: Mapping[str, Any], prompts: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    """Facts about this process and its inputs; no names of machines, users or folders."""
    found = {
        "versions": {"salt-zoo": _version("salt-zoo"), "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "hardware": _hardware(device),
        "inputs": dict(inputs),
        "prompts": {"count": len(prompts), "digest": digest(list(prompts))},
        "metrics": {name: zoo.metrics[name].plugin for name in metrics},
        "plugins": list(zoo.plugins),
        "broken_plugins": [{"plugin": b.plugin, "reason": b.reason} for b in zoo.broken],
    }
    plain: dict[str, Any] = published(found)
    return plain


#: An absolute path inside of a text; not what follows a word or a colon, as in and/or, https://x/y.
_PATH = re.compile(r"""(?<![\w:/.~-])(?:~|/)[^\s'"`,;()<>|\[\]{}]*/[^\s'"`:,;()<>|\[\]{}]*""")


def published(content: Any) -> Any:
    """Content as it may be published: where a private file or folder is named, its own name only.

    >>> published(["/home/ada/x.pt: no such file", "and/or", "https://a.org/b/c"])
    ['x.pt: no such file', 'and/or', 'https://a.org/b/c']
    """
    if isinstance(content, str):
        return _public(content) if "/" in content else content
    if isinstance(content, Mapping):
        return {published(key): published(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [published(value) for value in content]
    return content


def _public(text: str) -> str:
    if (
        text.startswith(("/", "~"))
        and "\n" not in text
        and os.path.lexists(os.path.expanduser(text))
    ):
        return os.path.basename(text.rstrip("/")) or text  # the whole text, blanks in it or not
    for folder in (Path.cwd(), Path.home()):
        if folder != Path("/"):  # blanks in these are no end of a path
            text = text.replace(f"{folder}/", "")
    return _PATH.sub(lambda found: os.path.basename(found[0].rstrip("/")) or found[0], text)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit of the source tree, marked if files differ from it; empty outside of one."""
    root = Path(__file__).resolve().parents[3]
    code = ["salt_zoo", "plugins", "benchmarks"]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *code)
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _hardware(device: str) -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"device": device, "cpu": _cpu(), "cores": len(os.sched_getaffinity(0))}
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
