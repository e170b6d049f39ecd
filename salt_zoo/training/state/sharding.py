"""Fully sharded networks (FSDP2): each process of a group holds a part of every weight.

`torch.distributed.fsdp.fully_shard` gathers a unit's weights before its pass and drops them after,
and sums the gradients of a backward pass into the shards. A method sees plain networks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from salt_zoo.core.networks.copies import copied
from salt_zoo.core.networks.lora import lora_layers
from salt_zoo.core.networks.precision import ResolvedPrecision

# It warns of operations in place on what a unit returns; neither diffusers' Wan nor we make any.
warnings.filterwarnings("ignore", ".*returned a view tensor", UserWarning)


@runtime_checkable
class HasShardUnits(Protocol):
    """A network that names the modules whose weights are gathered together."""

    def shard_units(self) -> Iterator[nn.Module]:
        """Modules without common weights, in the order of a pass; what is left is a unit of its
        own. A module whose output a backward inside the network starts from must be one."""
        ...


def shard(
    network: nn.Module,
    mesh: DeviceMesh,
    precision: ResolvedPrecision,
    *,
    frozen: bool,
    offload: bool = False,
) -> nn.Module:
    """Shard the weights of `network` in place over the last dimension of `mesh` and replicate
    them over the one before, if there is one; returns the same object.

    Without `shard_units` the whole network is one unit, gathered at once.

    Args:
        frozen: weights are gathered in the types that they are held in.
        offload: the shards are in main memory, and a unit is sent to the device for its pass. Not
            by diffusers' group offloading: that takes a block's weights away after the forward
            pass, also from the backward pass that goes through a frozen network.
    """
    # Trained weights are gathered in bfloat16 and their gradients summed in float32. Inputs stay:
    # casting them would round the times (0.9 to 0.8984) and the rotary tables.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if precision == "bf16" and not frozen:
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    place = OffloadPolicy()
    if offload:
        place = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
    if isinstance(network, HasShardUnits):
        for unit in network.shard_units():
            fully_shard(unit, mesh=mesh, mp_policy=policy, offload_policy=place)
    # By default the root keeps its gathered weights after a pass; an optimizer or an average would
    # then see whole tensors that are thrown away.
    fully_shard(
        network, mesh=mesh, mp_policy=policy, offload_policy=place, reshard_after_forward=True
    )
    return network


def settle_gradient_types(network: nn.Module) -> None:
    """Initialise FSDP while the weights of a sharded network take gradients, which they do not
    afterwards.

    By itself it waits for the first pass, and then takes the types of gradients from the weights
    that are trainable at that moment. A student's first pass may be a frozen one, for its fake
    score; its own update in bfloat16 would then fail (pytorch#186998).
    """
    network.requires_grad_(True)
    network._get_fsdp_state()._lazy_init()  # type: ignore[operator]
    network.requires_grad_(False)


def settle_gathered(network: nn.Module) -> None:
    """Gather each unit once, outside of inference mode.

    A group of one process asks the tensors that it gathers into for their version, which those of
    inference mode have not; they are made in the first pass, which may be a measurement's.
    """
    network._get_fsdp_state()._lazy_init()  # type: ignore[operator]
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()


def skeleton(network: nn.Module) -> nn.Module:
    """A copy of `network` whose weights and buffers have no data."""
    empty: dict[int, Any] = {}
    for parameter in network.parameters():
        data = torch.empty_like(parameter, device="meta")
        empty[id(parameter)] = nn.Parameter(data, requires_grad=False)
    for buffer in network.buffers():
        empty[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copied(network, empty)


def is_sharded(network: nn.Module) -> bool:
    """Whether `shard` has been called for `network`."""
    return isinstance(network, FSDPModule)


def local(tensors: list[Any]) -> list[Tensor]:
    """This process's part of each tensor: itself where it is not sharded."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def whole_parts(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a network of which this process holds all, also where it is offloaded."""
    return dict(zip(state, local(list(state.values())), strict=True))


def own_rows(weight: Any) -> tuple[slice, bool]:
    """The rows of a weight that this process has, as `torch.chunk` deals them: all of one that is
    not sharded; and whether it is of the first of the groups that have a copy each."""
    rows = weight.shape[0] if weight.ndim else 1
    if not isinstance(weight, DTensor):
        return slice(0, rows), True
    mesh = weight.device_mesh
    found = mesh.get_coordinate()
    assert found is not None  # this process is one of them
    *copy, place = found
    each = -(-rows // mesh.size(mesh.ndim - 1))
    own = slice(min(place * each, rows), min((place + 1) * each, rows))
    assert own.stop - own.start == len(weight.to_local())
    return own, not any(copy)


def whole(value: Tensor) -> Tensor:
    """A scalar of sharded weights, such as a norm, as a plain tensor."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_weights(network: nn.Module) -> Mapping[str, Tensor]:
    """The state dict of a network on the CPU, whole in the first process and empty in the others.

    All processes must call it.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: Any = get_model_state_dict(network, options=options)
    tensors: Mapping[str, Tensor] = found
    return tensors


@torch.no_grad()
def load_whole_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load whole tensors, of all weights or of a LoRA's adapters; the network may be sharded or
    offloaded.

    Every process has them: of a mapped file, only its own rows are read.
    """
    if not is_sharded(network):
        network.load_state_dict(tensors, strict=not lora_layers(network))
        return
    state = network.state_dict()
    for name, tensor in tensors.items():
        rows, _ = own_rows(state[name])
        local([state[name]])[0].copy_(tensor[rows] if tensor.ndim else tensor)


def shard_states(optimizer: torch.optim.Optimizer) -> None:
    """Shard the whole states that an optimizer of sharded weights has loaded, like the weights."""
    for weight, states in optimizer.state.items():
        if not isinstance(weight, DTensor):
            continue
        for key, value in states.items():
            if value.shape == weight.shape and not isinstance(value, DTensor):
                states[key] = distribute_tensor(value, weight.device_mesh, weight.placements)
