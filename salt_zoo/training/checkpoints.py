"""Checkpoints: weights in safetensors, optimizer states loaded with `weights_only`, all or nothing.

Random state is not needed: every draw is keyed by its step (`salt_zoo.draws`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from salt_zoo.errors import ZooError
from salt_zoo.storage import atomic_folder, remove_drafts, write_json
from salt_zoo.training.networks import Networks

STATE = "state.json"


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
        torch.save(optimizers, draft / "optimizers.pt")
        write_json(draft / STATE, state)
    for old in checkpoints(folder)[: -1 - keep]:
        shutil.rmtree(old, ignore_errors=True)
    remove_drafts(folder)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first."""
    found = {
        int(path.name.removeprefix("step-")): path
        for path in Path(folder).glob("step-*")
        if path.name.removeprefix("step-").isdecimal() and (path / STATE).is_file()
    }
    return [found[step] for step in sorted(found)]


def read_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as `state`.

    Raises:
        ZooError: the file is damaged.
    """
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(state, dict) or not isinstance(state["step"], int):
            raise ValueError("it has no 'step'")
    except (OSError, ValueError, KeyError) as error:
        raise damaged(path, folder, error) from None
    return state


def load_checkpoint(folder: Path, networks: Networks, device: Any) -> dict[str, Any]:
    """Load `folder` into `networks` and return its state.

    Raises:
        ZooError: a file is missing, truncated or of another network.
    """
    state = read_state(folder)
    for role in networks.saved_roles():
        path = folder / f"{role}.safetensors"
        try:
            load_weights(networks[role], path)
        except ZooError as error:
            raise damaged(path, folder, error.__context__ or error) from None
    path = folder / "optimizers.pt"
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        for role, optimizers in networks.optimizers.items():
            for optimizer, content in zip(optimizers, saved[role], strict=True):
                optimizer.load_state_dict(content)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise damaged(path, folder, error) from None
    return state


def damaged(path: Path, folder: Path, error: BaseException) -> ZooError:
    """What to say, and to do, about a checkpoint that cannot be loaded."""
    return ZooError(
        f"{path}: the checkpoint is damaged ({_first_line(error)}); delete the folder {folder} "
        "and run the same command again, it goes on from the checkpoint before or afresh"
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
