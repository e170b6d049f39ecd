"""The tensors of sharded networks and optimizers in safetensors, written by all processes.

Each process writes its shards; a checkpoint loads on any number of processes, sharded or not.
Optimizer states are named by their weight, because a resumed run must not depend on the order in
which optimizers hold theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.lora import lora_layers, trainable_state
from salt_zoo.training.state.eight_bit import MOMENTS, Piece, is_eight_bit, piece_of, set_moments
from salt_zoo.training.state.networks import Networks
from salt_zoo.training.state.sharding import local, own_rows

#: Between a role and the name of its weight, and between a weight and the name of a state.
_ROLE, _STATE = "::", "@"


def write_shards(networks: Networks, folder: Path) -> None:
    """Write weights and optimizer states of all trained roles; all processes must call it."""
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    every = _weights(networks) | _states(networks) | _pieces(networks)
    dcp.save(every, storage_writer=writer)


def read_shards(networks: Networks, folder: Path) -> None:
    """Load what `write_shards` has written, on any number of processes; all must call it.

    Raises:
        ZooError: a tensor is missing, or of another shape.
    """
    reader = HuggingFaceStorageReader(str(folder))
    written = {
        name: tuple(entry.size)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    tensors = _weights(networks)
    _make_states(networks, written)
    tensors |= _states(networks)
    for name, tensor in tensors.items():
        if name not in written:
            raise ZooError(f"{folder}: missing tensor {name!r}")
        if written[name] != tuple(tensor.shape):
            raise ZooError(
                f"{folder}: {name!r} is {list(written[name])}, expected {list(tensor.shape)}"
            )
    _load(tensors, folder)
    _load_pieces(networks, folder, written)
    for role in networks.saved_roles():  # tensors that are no parameters are copies here
        state = trainable_state(networks[role])
        found = {name: tensors[f"{role}{_ROLE}{name}"] for name in state}
        networks[role].load_state_dict(found, strict=not lora_layers(networks[role]))


def _load(tensors: dict[str, Tensor], folder: Path) -> None:
    alone = not distributed.is_initialized()
    dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)


def _weights(networks: Networks) -> dict[str, Tensor]:
    return {
        f"{role}{_ROLE}{name}": tensor
        for role in networks.saved_roles()
        for name, tensor in trainable_state(networks[role]).items()
    }


def _states(networks: Networks) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for role, optimizers in networks.optimizers.items():
        names = _names(networks[role])
        for optimizer in optimizers:
            for weight, states in optimizer.state.items():
                for key, value in states.items():
                    if is_eight_bit(optimizer) and key in MOMENTS:
                        continue  # in pieces
                    found[f"{role}{_ROLE}{names[weight]}{_STATE}{key}"] = value
    return found


def _eight_bit(networks: Networks) -> Iterator[tuple[Any, Any, str]]:
    """Each optimizer of 8 bits with each of its weights, and the name of that."""
    for role, optimizers in networks.optimizers.items():
        names = _names(networks[role])
        for optimizer in filter(is_eight_bit, optimizers):
            for weight in optimizer.state:
                yield optimizer, weight, f"{role}{_ROLE}{names[weight]}"


def _pieces(networks: Networks) -> dict[str, Tensor]:
    """The moments of 8 bits, each process's rows under names of their own."""
    found: dict[str, Tensor] = {}
    for optimizer, weight, name in _eight_bit(networks):
        for moment in MOMENTS:
            piece = piece_of(weight, optimizer.state[weight][moment])
            rows = f"{piece.rows.start}-{piece.rows.stop}"
            if piece.rows:
                for kind, tensor in piece.tensors.items():
                    found[_STATE.join((name, moment, rows, kind))] = tensor
    return found


def _load_pieces(networks: Networks, folder: Path, written: Mapping[str, tuple[int, ...]]) -> None:
    """Set the moments of 8 bits from all pieces that have rows of this process."""
    of: dict[tuple[str, str], dict[range, list[str]]] = {}
    for full in written:
        name, *rest = full.split(_STATE)
        if len(rest) == 3:
            moment, place, kind = rest
            first, _, last = place.partition("-")
            pieces = of.setdefault((name, moment), {})
            pieces.setdefault(range(int(first), int(last)), []).append(kind)
    tensors: dict[str, Tensor] = {}
    wanted = []
    for optimizer, weight, name in _eight_bit(networks):
        rows, _ = own_rows(weight)
        device = local([weight])[0].device
        mine: dict[str, list[Piece]] = {}
        for moment in MOMENTS:
            mine[moment] = []
            for there, kinds in of.get((name, moment), {}).items():
                if there.start >= rows.stop or there.stop <= rows.start:
                    continue
                held = {}
                for kind in kinds:
                    full = _STATE.join((name, moment, f"{there.start}-{there.stop}", kind))
                    dtype = torch.uint8 if kind == "codes" else torch.float32
                    held[kind] = tensors[full] = torch.empty(
                        written[full], dtype=dtype, device=device
                    )
                mine[moment].append(Piece(there, held))
            if sum(len(p.rows) for p in mine[moment]) < rows.stop - rows.start:
                raise ZooError(f"{folder}: missing tensor {_STATE.join((name, moment))!r}")
        wanted.append((optimizer, weight, mine))
    if any(is_eight_bit(o) for every in networks.optimizers.values() for o in every):
        _load(tensors, folder)
    for optimizer, weight, mine in wanted:
        set_moments(optimizer, weight, mine)


def _make_states(networks: Networks, written: Mapping[str, tuple[int, ...]]) -> None:
    """Give every optimizer empty tensors for the states that were written of its weights."""
    keys: dict[str, list[str]] = {}
    for name in written:
        weight, at, key = name.rpartition(_STATE)
        if at:
            keys.setdefault(weight, []).append(key)
    for role, optimizers in networks.optimizers.items():
        names = _names(networks[role])
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    name = f"{role}{_ROLE}{names[weight]}"
                    if name in keys:
                        optimizer.state[weight] = {
                            key: _empty(weight, written[f"{name}{_STATE}{key}"])
                            for key in keys[name]
                        }


def _empty(weight: Any, shape: tuple[int, ...]) -> Tensor:
    """A state of the shape of its weight is sharded like it; a count of steps is on the CPU."""
    if shape == tuple(weight.shape):
        return torch.zeros_like(weight, requires_grad=False)
    return torch.zeros(shape)


def _names(network: nn.Module) -> dict[Any, str]:
    return {weight: name for name, weight in network.named_parameters()}
