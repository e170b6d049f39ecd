"""The device of a run, and accelerate's view of it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration

from salt_zoo.config.training import TrainingConfig
from salt_zoo.core.base.errors import ZooError, as_given
from salt_zoo.core.base.launchers import ACCELERATE, ACCELERATES_CHOICES, check_meeting
from salt_zoo.core.base.ranks import is_alone
from salt_zoo.io.files.storage import readable_errors


def check_device(name: str) -> torch.device | None:
    """The device of that name, whether this machine has it or not; None for `auto`.

    Raises:
        ZooError: there is no such device anywhere.
    """
    at = f"--device {as_given(name)}"
    if name == "auto":
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ZooError(f"{at}: unknown device; write cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ZooError(f"{at}: only cpu and cuda are supported")
    if device.type == "cpu" and device.index:
        raise ZooError(f"{at}: there is one CPU; write cpu")
    return device


def find_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        ZooError: there is no such device here.
    """
    at = f"--device {as_given(name)}"
    device = check_device(name)
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ZooError(f"{at}: torch finds no CUDA device here; use --device cpu")
    if device.type == "cuda" and device.index is not None:
        count = torch.cuda.device_count()
        if device.index >= count:
            raise ZooError(
                f"{at}: this machine has {count} CUDA device{'s' * (count != 1)}, "
                f"cuda:0{f' to cuda:{count - 1}' if count > 1 else ''}"
            )
        if not is_alone():
            raise ZooError(f"{at}: with several processes, each uses its own device; write cuda")
    return device


def make_accelerator(device: str, config: TrainingConfig, folder: Path) -> Accelerator:
    """An accelerate process group (torchrun's, if there is one) on a device; writes nothing yet."""
    check_meeting()
    found = find_device(device)
    if "wandb" in config.trackers and not importlib.util.find_spec("wandb"):
        raise ZooError("training.trackers: wandb is not installed; run: pip install wandb")
    # accelerate keeps the device of a process's first run for all others, in a state that has no
    # public reset; the precision is none of its business (salt_zoo.core.networks.precision)
    AcceleratorState._reset_state(reset_partial_state=True)
    with _chosen(found):
        return Accelerator(
            cpu=found.type == "cpu",
            mixed_precision="no",
            log_with=list(config.trackers) or None,
            project_config=ProjectConfiguration(str(folder), logging_dir=str(folder / "logs")),
        )


@contextlib.contextmanager
def _chosen(device: torch.device) -> Iterator[None]:
    """Let accelerate take `device`, where it has a number, and by itself the first one, or that of
    the process: what its own launcher has left in the environment is not what was asked for (see
    `salt_zoo.core.base.launchers.unused`)."""
    chosen = [name for name in os.environ if name.startswith(ACCELERATES_CHOICES)]
    before = {name: os.environ.pop(name) for name in chosen}
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # for what libraries allocate on "cuda"
        os.environ[_DEVICE] = str(device)
    try:
        yield
    finally:
        os.environ.pop(_DEVICE, None)
        os.environ.update(before)


#: Where accelerate looks for a device.
_DEVICE = f"{ACCELERATE}TORCH_DEVICE"


def join_processes(device: str) -> None:
    """Let this process of a distributed run meet the others, before any training."""
    if not is_alone():
        make_accelerator(device, TrainingConfig(trackers=[]), Path())


def device_of_process(device: str) -> torch.device:
    """The device of this process, once it has met the others of its run."""
    found = find_device(device)
    join_processes(device)
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(found)
    return found


def start_trackers(accelerator: Accelerator, config: TrainingConfig, step: int = 0) -> None:
    """Begin the run's logs, in its folder, or go on with them from `step`: what an interrupted run
    has logged after its last checkpoint does not stand there twice."""
    if config.trackers:
        goes_on = {"tensorboard": {"purge_step": step + 1}} if step else {}
        with _readable(accelerator):
            accelerator.init_trackers("salt-zoo", init_kwargs=goes_on)


def log(accelerator: Accelerator, numbers: Mapping[str, float], step: int) -> None:
    """Add to the run's logs."""
    with _readable(accelerator):
        accelerator.log(dict(numbers), step=step)


def end_trackers(accelerator: Accelerator) -> None:
    """End the logs; the process group stays for the next training of this process."""
    with _readable(accelerator):
        for tracker in accelerator.trackers:
            tracker.finish()


@contextlib.contextmanager
def _readable(accelerator: Accelerator) -> Iterator[None]:
    """A full disk as one line that names the folder of the logs."""
    folder = accelerator.logging_dir
    with readable_errors(Path(folder)) if folder else contextlib.nullcontext():
        yield
