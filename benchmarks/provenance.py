"""What a reader needs to trust, or repeat, a study: versions, commit, hardware, digests."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_zoo.plugins import Zoo
from salt_zoo.storage import digest

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "scikit-learn", "pluggy")


def provenance(
    zoo: Zoo, device: str, inputs: Mapping[str, Any], prompts: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    """Facts about this process and its inputs; no names of machines, users or folders."""
    return {
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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit of the source tree, marked if files differ from it; empty outside of one."""
    root = Path(__file__).resolve().parent.parent
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
