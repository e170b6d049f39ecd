"""The device of a run, and accelerate's view of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration

from salt_zoo.errors import ZooError
from salt_zoo.training.config import TrainingConfig


def find_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        ZooError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ZooError(f"--device {name}: unknown device; write cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ZooError(f"--device {name}: torch finds no CUDA device here; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise ZooError(f"--device {name}: only cpu and cuda are supported")
    return device


def make_accelerator(device: str, config: TrainingConfig, folder: Path) -> Accelerator:
    """An accelerate process group (torchrun's, if there is one) on a device; writes nothing yet."""
    on_cpu = find_device(device).type == "cpu"
    if "wandb" in config.trackers and not importlib.util.find_spec("wandb"):
        raise ZooError("training.trackers: wandb is not installed; run: pip install wandb")
    # accelerate keeps the device of a process's first run for all others, in a state that has no
    # public reset; the precision is none of its business (salt_zoo.precision)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no",
        log_with=list(config.trackers) or None,
        project_config=ProjectConfiguration(str(folder), logging_dir=str(folder / "logs")),
    )
    return accelerator


def start_trackers(accelerator: Accelerator, config: TrainingConfig) -> None:
    """Begin the run's logs, in its folder."""
    if config.trackers:
        accelerator.init_trackers("salt-zoo")
