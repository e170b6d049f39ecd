"""Checkpoints: weights in safetensors, other states loaded with `weights_only`, all or nothing.

Random state is not needed: every draw is keyed by its step (`salt_zoo.core.base.rng`). `state.json`
holds the digests of all files, and its own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.core.networks.lora import trainable_state
from salt_zoo.io.distributed import on_main
from salt_zoo.io.files.pickles import load_pickle
from salt_zoo.io.files.seals import Damaged, check_files, file_digests, read_sealed, write_sealed
from salt_zoo.io.files.storage import atomic_folder, readable_errors
from salt_zoo.plugin.isolation import checked_roles
from salt_zoo.training.checkpoints.shards import read_shards, write_shards
from salt_zoo.training.state.eight_bit import is_eight_bit, load_plain_state, plain_state
from salt_zoo.training.state.networks import Networks
from salt_zoo.training.state.sharding import load_whole_weights, shard_states, whole_parts

STATE, OPTIMIZERS = "state.json", f"{checked_roles.OPTIMIZERS}.pt"
#: The states of a `Stateful` method, one of each share of a batch.
METHOD = "method.pt"

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
    folder: Path,
    networks: Networks,
    state: Mapping[str, Any],
    method_states: Sequence[Mapping[str, Any]] = (),
    keep: int = 1,
) -> Path:
    """Write `folder/step-NNNNNN` and drop all but the newest `keep` others.

    Of a distributed run all processes must call it; each writes its shards.

    Args:
        state: for `state.json`.
        method_states: of the method, one of each share of a batch; empty ones are not written.
    """
    target = folder / f"step-{state['step']:06d}"
    with ExitStack() as held:
        draft = on_main(lambda: held.enter_context(atomic_folder(target)))
        if networks.layout.sharded:
            write_shards(networks, draft)
        else:
            on_main(lambda: _write_whole(networks, draft))

        def finish() -> None:
            if any(method_states):
                _save(list(method_states), draft / METHOD)
            write_sealed(draft / STATE, {**state, "files": file_digests(draft)})

        on_main(finish)  # which waits for all shards
    on_main(lambda: _drop(checkpoints(folder)[: -1 - keep]))
    return target


def _write_whole(networks: Networks, draft: Path) -> None:
    for role in networks.saved_roles():
        tensors = _apart(whole_parts(trainable_state(networks[role])))
        safetensors.torch.save_file(tensors, draft / f"{role}.safetensors")
    optimizers = {
        role: [plain_state(one) if is_eight_bit(one) else one.state_dict() for one in optimizers]
        for role, optimizers in networks.optimizers.items()
    }
    _save(optimizers, draft / OPTIMIZERS)


def _drop(folders: Sequence[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _save(content: Any, path: Path) -> None:
    # through a file of ours: torch writes the name of one that it opens into it
    with open(path, "wb") as file:
        torch.save(content, file)


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them: those of tied weights do."""
    seen: set[int] = set()
    apart = {}
    for name, value in state.items():
        tied = value.untyped_storage().data_ptr() in seen
        seen.add(value.untyped_storage().data_ptr())
        apart[name] = value.clone() if tied else value.contiguous()
    return apart


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


def load_checkpoint(
    checkpoint: Checkpoint, networks: Networks, device: Any
) -> list[Mapping[str, Any]]:
    """Load the weights and optimizer states into `networks`, and return the method's states: one of
    each share of a batch, none where it had none.

    Raises:
        ZooError: a file is missing, or of another network.
    """
    folder = checkpoint.folder
    if not (folder / OPTIMIZERS).is_file():
        try:
            read_shards(networks, folder)
        except Exception as error:  # torch raises many kinds
            raise _cannot_load(folder, ZooError(reason(error))) from None
        return _method_states(folder)
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
        saved = load_pickle(path, mmap=mapped)
        for role, optimizers in networks.optimizers.items():
            for optimizer, content in zip(optimizers, saved[role], strict=True):
                if is_eight_bit(optimizer):
                    load_plain_state(optimizer, content)
                else:
                    optimizer.load_state_dict(content)
                    shard_states(optimizer)
    except Exception as error:  # torch raises many kinds
        raise _cannot_load(folder, ZooError(f"{path}: {reason(error)}")) from None
    return _method_states(folder)


def _method_states(folder: Path) -> list[Mapping[str, Any]]:
    path = folder / METHOD
    if not path.is_file():
        return []
    try:
        states: list[Mapping[str, Any]] = load_pickle(path)
    except Exception as error:  # torch raises many kinds
        raise _cannot_load(folder, ZooError(f"{path}: {reason(error)}")) from None
    return states


def _cannot_load(folder: Path, error: ZooError) -> ZooError:
    return ZooError(
        f"{error}; the checkpoint cannot be loaded: delete the folder {folder} and run the same "
        "command again, it resumes from the previous checkpoint or starts over"
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
            f"{path}: an incomplete or corrupt safetensors file ({_first_line(error)}); download "
            "or export it again"
        ) from None
    wanted = trainable_state(network)
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise ZooError(f"{path}: lacks {missing[0]!r} ({len(missing)} of {len(wanted)} tensors)")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise ZooError(f"{path}: has {unknown[0]!r}, which the network does not have")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ZooError(
                f"{path}: {name!r} is {list(tensor.shape)}, the network's is "
                f"{list(wanted[name].shape)}; the file belongs to another size"
            )
    load_whole_weights(network, tensors)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
