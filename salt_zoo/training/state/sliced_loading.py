"""Loading networks that are sharded or offloaded by slices: no process makes a whole one.

A network is made on the meta device, sharded, and given memory for this process's part alone, into
which its rows of every weight are read. Weights that no file has as they are make the exception:
the first process makes the whole network and sends each weight on its own.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.finite import count_not_finite, weights_not_finite
from salt_zoo.core.base.overridden import is_overridden
from salt_zoo.core.base.ranks import is_main_process
from salt_zoo.core.methods.meta import made_on
from salt_zoo.core.methods.roles import Originals, is_shared, make_network, maker
from salt_zoo.core.networks.lora import add_lora, lora_layers, trainable
from salt_zoo.core.networks.precision import ResolvedPrecision, with_precision
from salt_zoo.core.protocols import Backbone, LoadsSlices, NetworkSpec, StoredWeights
from salt_zoo.io.distributed import on_main
from salt_zoo.io.printing import say
from salt_zoo.training.state.sharding import local, own_rows


def can_load_slices(backbone: Backbone, roles: Mapping[str, NetworkSpec]) -> bool:
    """Whether the backbones of all roles are `LoadsSlices`."""
    makers = [maker(backbone, role.start)[0] for role in roles.values() if role.start is not None]
    return all(
        isinstance(one, LoadsSlices) and not is_overridden(type(one), "network", "empty_network")
        for one in makers
    )


class SlicedLoading:
    """Makes velocity networks that are sharded or offloaded: `empty`, then `shard`, then `fill`.

    Args:
        backbone: one that `can_load_slices`.
        roles: of the run, as `Networks` has them; what an average follows is made before it.
        drawn: a context for a role, in which what is drawn depends on seed and role alone.
        offload: kinds of networks in main memory, which share no weights.
    """

    def __init__(
        self,
        backbone: Backbone,
        roles: Mapping[str, NetworkSpec],
        precision: ResolvedPrecision,
        drawn: Callable[[str], AbstractContextManager[None]],
        offload: Sequence[str] = (),
    ) -> None:
        self._backbone, self._roles, self._precision = backbone, roles, precision
        self._drawn, self._offload = drawn, offload
        self._with_lora = any(role.lora is not None for role in roles.values())
        self._key_of = Originals(backbone, ()).key
        self._begun: dict[str, Hashable] = {}  # the first role of each start
        self._filled: dict[str, nn.Module] = {}  # by role; nothing is trained before all are made

    def is_shared(self, role: NetworkSpec) -> bool:
        """Whether a role's frozen weights are held once for all roles that have the same
        (`FrozenBases`)."""
        return self._with_lora and is_shared(role, self._offload)

    def empty(self, name: str) -> nn.Module:
        """The network of a role, its weights on the meta device; a LoRA's adapters are drawn."""
        role = self._roles[name]
        assert role.start is not None
        whose, start = maker(self._backbone, role.start)
        assert isinstance(whose, LoadsSlices)
        with ExitStack() as drawing:
            drawing.enter_context(self._drawn(name))
            network = whose.empty_network(start)
            if self.is_shared(role):
                network = with_precision(network, self._precision, "meta", frozen=True)
            # Adapters are drawn after their network, as where networks are whole: of those that
            # start alike, all but the first are copies there, for which nothing is drawn.
            if self._key(role) in self._begun.values():
                drawing.enter_context(self._drawn(name))
            else:
                self._begun[name] = self._key(role)
            if role.lora is not None:
                add_lora(network, role.lora, f"training.lora.{name}", "cpu")
        return network

    def fill(
        self, name: str, network: nn.Module, device: torch.device, *, offload: bool = False
    ) -> None:
        """Give a sharded network this process's part of its weights; all processes must call it.

        Buffers and adapters have their values already: no file has them.

        Args:
            device: of the run.
            offload: the part is kept in main memory.

        Raises:
            ZooError: the weights cannot be loaded, or have numbers that are not finite.
        """
        role, place = self._roles[name], torch.device("cpu") if offload else device
        donor = self._donor(role, network)
        if donor is None:
            self._load(name, network, device, place)
            if self.is_shared(role):
                for other, filled in self._filled.items():
                    if self.is_shared(self._roles[other]):
                        _share_equal(network, filled, device)
        elif self.is_shared(role) and self.is_shared(self._roles[donor]):
            given = _frozen(self._filled[donor])
            network.load_state_dict(given, strict=False, assign=True)
        else:
            given = _frozen(self._filled[donor])
            parts = {
                name: given[name].to_local().to(place, weight.dtype, copy=True)
                for name, weight in _frozen(network).items()
            }
            _assign_parts(network, parts)
        if role.follows is not None and role.lora is not None:
            _copy_adapters(self._filled[role.follows], network)
        self._filled[name] = network

    def _key(self, role: NetworkSpec) -> Hashable:
        assert role.start is not None
        return ("random", id(role)) if role.start == "random" else self._key_of(role.start)

    def _donor(self, role: NetworkSpec, network: nn.Module) -> str | None:
        """The role of a network with the same weights, in float32 or in the types that are wanted:
        for an average what it follows."""
        if role.follows is not None:
            return role.follows
        wanted = _frozen(network)
        for name, filled in self._filled.items():
            if self._key(self._roles[name]) != self._key(role):
                continue
            weights = _frozen(filled)
            if all(weights[n].dtype in (torch.float32, w.dtype) for n, w in wanted.items()):
                return name
        return None

    def _load(
        self, name: str, network: nn.Module, device: torch.device, place: torch.device
    ) -> None:
        role = self._roles[name]
        assert role.start is not None
        whose, start = maker(self._backbone, role.start)
        assert isinstance(whose, LoadsSlices)
        if start != "random":
            stored = whose.stored_weights(start)
            if isinstance(stored, StoredWeights):
                _assign_parts(network, _read_slices(network, stored, place))
                return
            if is_main_process() and distributed.get_world_size() > 1:
                say(
                    f"note: the weights of {name!r} cannot be read in parts: {stored}; the first "
                    "process loads the whole network and sends them one by one"
                )
        whole: dict[str, Tensor] = {}

        def load() -> None:
            # a whole network may fit no GPU
            with self._drawn(name), made_on(self._backbone, "cpu"):
                made = make_network(self._backbone, role.start or "random")
                if role.lora is not None and name in self._begun:
                    add_lora(made, role.lora, f"training.lora.{name}")
            whole.update(made.named_parameters())

        on_main(load)
        parts = {n: part.to(place) for n, part in _receive(_frozen(network), whole, device)}
        _assign_parts(network, parts)
        if role.lora is not None and name in self._begun:
            adapters = dict(trainable(network))
            for adapter, part in _receive(adapters, whole, device):
                local([adapters[adapter]])[0].detach().copy_(part)


def _frozen(network: nn.Module) -> dict[str, Any]:
    """The weights that come from outside: all but a LoRA's adapters."""
    adapters = dict(trainable(network)) if lora_layers(network) else {}
    return {n: weight for n, weight in network.named_parameters() if n not in adapters}


def _assign_parts(network: nn.Module, parts: Mapping[str, Tensor]) -> None:
    """Make tensors this process's parts of the weights that are on the meta device.

    Not by `to_empty`, which would leave rubbish in buffers that no file has.
    """
    weights = _frozen(network)
    state = {}
    for name, part in parts.items():
        meta = weights[name]
        made = DTensor.from_local(
            part,
            meta.device_mesh,
            meta.placements,
            run_check=False,
            shape=meta.shape,
            stride=meta.stride(),
        )
        state[name] = made.to(part.device)  # it has gone to the mesh's device
    network.load_state_dict(state, strict=False, assign=True)


@torch.no_grad()
def _copy_adapters(followed: nn.Module, network: nn.Module) -> None:
    for (_, own), (_, its) in zip(trainable(network), trainable(followed), strict=True):
        local([own])[0].copy_(local([its])[0])


@torch.no_grad()
def _read_slices(
    network: nn.Module, stored: StoredWeights, device: torch.device
) -> dict[str, Tensor]:
    """This process's rows of every weight, read from mapped files; looks at each number."""
    parts, bad = {}, {}
    for name, weight in _frozen(network).items():
        if name not in stored.tensors:
            raise ZooError(f"{stored.place}: lacks {name!r}")
        rows, counts = own_rows(weight)
        # float64 is rounded twice, as where a network is loaded whole
        read = stored.tensors[name][rows].float()
        parts[name] = torch.empty_like(weight.to_local(), device=device).copy_(read)
        if counts and (number := count_not_finite(read)):
            bad[name] = number
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, bad)
    totals = Counter[str]()
    for one in found:
        totals.update(one)
    for name, number in totals.items():
        raise weights_not_finite(stored.place, name, number, stored.tensors[name].numel())
    return parts


@torch.no_grad()
def _receive(
    weights: Mapping[str, Any], whole: Mapping[str, Tensor], device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """This process's rows of every weight, of which the first process has all in `whole`."""
    for name, weight in weights.items():
        tensor = torch.empty(weight.shape, dtype=weight.dtype, device=device)
        if whole:
            tensor.copy_(whole[name])
        distributed.broadcast(tensor, src=0)
        rows, _ = own_rows(weight)
        yield name, tensor[rows].clone()


@torch.no_grad()
def _share_equal(network: nn.Module, other: nn.Module, device: torch.device) -> None:
    """Let `network` use the shards of `other` that have the same name, type and numbers."""
    mine, theirs = _frozen(network), _frozen(other)
    names = [
        name
        for name, weight in mine.items()
        if name in theirs
        and (theirs[name].dtype, theirs[name].shape) == (weight.dtype, weight.shape)
    ]
    parts = zip(local([mine[n] for n in names]), local([theirs[n] for n in names]), strict=True)
    same = torch.tensor([torch.equal(one, its) for one, its in parts], device=device).int()
    distributed.all_reduce(same, op=distributed.ReduceOp.MIN)
    shared = {name: theirs[name] for name, yes in zip(names, same.tolist(), strict=True) if yes}
    network.load_state_dict(shared, strict=False, assign=True)
    gc.collect()  # FSDP refers to what has been replaced in circles
