"""Checkpoints: weights in safetensors, optimizer states loaded with `weights_only`, all or nothing.

Random state is not needed: every draw is keyed by its step (`salt_zoo.core.rng`). `state.json`
holds the digests of all files, and its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from salt_zoo.core.errors import ZooError, reason
from salt_zoo.io.seals import Damaged, check_files, file_digests, read_sealed, write_sealed
from salt_zoo.io.storage import atomic_folder, readable_errors
from salt_zoo.plugin import checked_method as methods
from salt_zoo.training.networks import Networks

STATE, OPTIMIZERS = "state.json", f"{methods.OPTIMIZERS}.pt"

#: Of a folder; ASCII, because other digits are digits to Python, too.
_NAME = re.compile(r"step-([0-9]{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are those that were written.

    Attributes:
        state: what `save_checkpoint` was given.
    """

    folder: Path
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])


def save_checkpoint(
    folder: Path, networks: Networks, state: Mapping[str, Any], keep: int = 1
) -> Path:
    """Write `folder/step-NNNNNN` and drop all but the newest `keep` others."""
    target = folder / f"step-{state['step']:06d}"
    with atomic_folder(target) as draft:
        for role in networks.saved_roles():
            tensors = {k: v.contiguous() for k, v in networks[role].state_dict().items()}
            safetensors.torch.save_file(tensors, draft / f"{role}.safetensors")
        optimizers = {
            role: [optimizer.state_dict() for optimizer in optimizers]
            for role, optimizers in networks.optimizers.items()
        }
        # through a file of ours: torch writes the name of one that it opens into it
        with open(draft / OPTIMIZERS, "wb") as file:
            torch.save(optimizers, file)
        write_sealed(draft / STATE, {**state, "files": file_digests(draft)})
    for old in checkpoints(folder)[: -1 - keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder` that have a state, oldest first."""
    return [path for path in _candidates(folder) if (path / STATE).is_file()]


def _candidates(folder: Path) -> list[Path]:
    found = {
        int(match[1]): path
        for path in Path(folder).glob("step-*")
        if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    }
    return [found[step] for step in sorted(found)]


def updates_done(folder: Path) -> int:
    """How many updates the newest checkpoint in `folder` has done, by its name; 0 without any."""
    kept = checkpoints(folder)
    return int(kept[-1].name.removeprefix("step-")) if kept else 0


def newest_whole(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose files are all as they were written, and a line about each newer
    one that is not: it is renamed `damaged-step-NNNNNN`, so that it can be looked at.

    Raises:
        ZooError: `folder` is none, or a damaged checkpoint cannot be set aside.
    """
    lines: list[str] = []
    if folder.exists() and not folder.is_dir():
        raise ZooError(f"{folder}: is a file, not a folder of checkpoints; remove it")
    for path in reversed(_candidates(folder)):
        try:
            return _whole(path), lines
        except Damaged as damage:
            aside = _set_aside(path)
            lines.append(
                f"{damage.path}: the checkpoint is damaged ({damage.why}); it is now {aside}"
            )
    return None, lines


def _whole(folder: Path) -> Checkpoint:
    path = folder / STATE
    state = read_sealed(path)
    step = state.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise Damaged(path, "it has no 'step'")
    if folder.name != f"step-{step:06d}":
        raise Damaged(path, f"it is of update {step}")
    if "files" in state:  # checkpoints of older versions have no digests
        check_files(folder, state["files"])
    return Checkpoint(folder, state)


def _set_aside(folder: Path) -> Path:
    number = 1
    while True:
        end = "" if number == 1 else f"-{number}"
        aside = folder.with_name(f"damaged-{folder.name}{end}")
        if not aside.exists():
            break
        number += 1
    with readable_errors(aside):
        folder.rename(aside)
    return aside


def load_checkpoint(checkpoint: Checkpoint, networks: Networks, device: torch.device | str) -> None:
    """Load the weights and optimizer states into `networks`.

    Raises:
        ZooError: a file is missing, or of another network.
    """
    folder = checkpoint.folder
    for role in networks.saved_roles():
        try:
            load_weights(networks[role], folder / f"{role}.safetensors")
        except ZooError as error:
            raise _cannot_load(folder, error) from None
    path = folder / OPTIMIZERS
    try:
        # A state is loaded once: on a CPU the optimizer keeps these tensors, elsewhere each goes
        # there on its own from the file, which is mapped. (A mapped file must outlive its tensors.)
        mapped = torch.device(device).type != "cpu"
        saved = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
        for role, optimizers in networks.optimizers.items():
            for optimizer, content in zip(optimizers, saved[role], strict=True):
                optimizer.load_state_dict(content)
    except Exception as error:  # torch raises many kinds
        raise _cannot_load(folder, ZooError(f"{path}: {reason(error)}")) from None


def _cannot_load(folder: Path, error: ZooError) -> ZooError:
    return ZooError(
        f"{error}; the checkpoint cannot be loaded: delete the folder {folder} and run the same "
        "command again, it goes on from the checkpoint before or afresh"
    )


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into `network`, exactly.

    Raises:
        ZooError: the file is missing, damaged, or holds other tensors than the network has.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise ZooError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise ZooError(
            f"{path}: not a whole safetensors file ({_first_line(error)}); fetch or write it again"
        ) from None
    wanted = network.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise ZooError(f"{path}: lacks {missing[0]!r} ({len(missing)} of {len(wanted)} tensors)")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise ZooError(f"{path}: has {unknown[0]!r}, which the network has not")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ZooError(
                f"{path}: {name!r} is {list(tensor.shape)}, the network's is "
                f"{list(wanted[name].shape)}; the file belongs to another size"
            )
    network.load_state_dict(tensors)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
