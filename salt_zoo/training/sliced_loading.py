"""Loading the networks of a sharded run by slices: no process holds a whole one.

A network is made on the meta device, sharded, and given memory for this process's part alone, into
which its rows of every weight are read. Weights that no file has as they are make the exception:
the first process makes the whole network and sends each weight on its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
import torch.distributed as distributed
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from salt_zoo.core.errors import ZooError
from salt_zoo.core.finite import count_not_finite, weights_not_finite
from salt_zoo.core.lora import add_lora, lora_layers, trainable
from salt_zoo.core.overridden import is_overridden
from salt_zoo.core.precision import ResolvedPrecision, with_precision
from salt_zoo.core.protocols import Backbone, LoadsSlices, NetworkSpec, StoredWeights
from salt_zoo.core.roles import Originals, is_shared, make_network, maker
from salt_zoo.io.distributed import on_main
from salt_zoo.io.printing import say
from salt_zoo.training.sharding import load_whole_weights, local


def can_load_slices(backbone: Backbone, roles: Mapping[str, NetworkSpec]) -> bool:
    """Whether the backbones of all roles are `LoadsSlices`."""
    whose = {id(one): one for one in _makers(backbone, roles)}.values()
    return all(
        isinstance(one, LoadsSlices) and not is_overridden(type(one), "network", "empty_network")
        for one in whose
    )


def _makers(backbone: Backbone, roles: Mapping[str, NetworkSpec]) -> list[Backbone]:
    return [maker(backbone, role.start)[0] for role in roles.values() if role.start is not None]


class SlicedLoading:
    """Makes the velocity networks of a sharded run: `empty`, then `shard`, then `fill`.

    Args:
        backbone: one that `can_load_slices`.
        roles: of the run, as `Networks` has them; what an average follows is made before it.
        drawn: a context for a role, in which what is drawn depends on seed and role alone.
    """

    def __init__(
        self,
        backbone: Backbone,
        roles: Mapping[str, NetworkSpec],
        precision: ResolvedPrecision,
        drawn: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._backbone, self._roles, self._precision = backbone, roles, precision
        self._drawn = drawn
        self._with_lora = any(role.lora is not None for role in roles.values())
        self._key_of = Originals(backbone, ()).key
        self._begun: set[Hashable] = set()
        self._filled: dict[str, nn.Module] = {}  # by role; nothing is trained before all are made

    def is_shared(self, role: NetworkSpec) -> bool:
        """Whether a role's frozen weights are held once for all roles that have the same
        (`FrozenBases`)."""
        return self._with_lora and is_shared(role)

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
            key = self._key(role)
            if key in self._begun:  # a whole network would be a copy, for which nothing is drawn
                drawing.enter_context(self._drawn(name))
            self._begun.add(key)
            if role.lora is not None:
                add_lora(network, role.lora, f"training.lora.{name}", "cpu")
        return network

    def fill(self, name: str, network: nn.Module, device: torch.device) -> None:
        """Give a sharded network this process's part of its weights; all processes must call it.

        Raises:
            ZooError: the weights cannot be loaded, or have numbers that are not finite.
        """
        role = self._roles[name]
        _materialise(network, device)
        if role.ema_of is not None:
            _copy_parts(self._filled[role.ema_of], network, dict(network.named_parameters()))
        elif (donor := self._donor(role, network)) is not None:
            _copy_parts(donor, network, _frozen(network))
        else:
            self._load(name, network)
        if self.is_shared(role):
            for other, filled in self._filled.items():
                if self.is_shared(self._roles[other]):
                    _share_equal(network, filled, device)
        self._filled[name] = network

    def _key(self, role: NetworkSpec) -> Hashable:
        assert role.start is not None
        return ("random", id(role)) if role.start == "random" else self._key_of(role.start)

    def _donor(self, role: NetworkSpec, network: nn.Module) -> nn.Module | None:
        """A network with the same weights, in float32 or in the types that are wanted."""
        wanted = _frozen(network)
        for name, filled in self._filled.items():
            if self._roles[name].ema_of is None and self._key(self._roles[name]) == self._key(role):
                weights = _frozen(filled)
                if all(weights[n].dtype in (torch.float32, w.dtype) for n, w in wanted.items()):
                    return filled
        return None

    def _load(self, name: str, network: nn.Module) -> None:
        role = self._roles[name]
        assert role.start is not None
        whose, start = maker(self._backbone, role.start)
        assert isinstance(whose, LoadsSlices)
        if start != "random":
            stored = whose.stored_weights(start)
            if isinstance(stored, StoredWeights):
                _read_slices(network, stored)
                return
            say(
                f"note: the weights of {name!r} cannot be read in parts: {stored}; the first "
                "process loads the whole network and sends them one by one"
            )
        whole: list[nn.Module] = []

        def load() -> None:
            with self._drawn(name):
                made = make_network(self._backbone, role.start or "random")
            trained = role.learning_rate is not None and not self.is_shared(role)
            whole.append(with_precision(made, self._precision, "cpu", frozen=not trained))

        on_main(load)
        load_whole_weights(network, whole[0].state_dict() if whole else {})


def _frozen(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that come from outside: all but a LoRA's adapters."""
    adapters = dict(trainable(network)) if lora_layers(network) else {}
    return {n: weight for n, weight in network.named_parameters() if n not in adapters}


@torch.no_grad()
def _materialise(network: nn.Module, device: torch.device) -> None:
    """Give the weights memory on `device`. Buffers and adapters keep their values: no file has
    them, and `to_empty` would leave rubbish."""

    def tensors() -> dict[str, Any]:
        return {**dict(network.named_parameters()), **dict(network.named_buffers())}

    kept = {n: local([t])[0].clone() for n, t in tensors().items() if not t.is_meta}
    network.to_empty(device=device)
    now = tensors()
    for name, value in kept.items():
        local([now[name]])[0].copy_(value)


@torch.no_grad()
def _copy_parts(donor: nn.Module, network: nn.Module, wanted: Mapping[str, Any]) -> None:
    """Copy this process's parts of the wanted weights; both networks are sharded alike."""
    given = dict(donor.named_parameters())
    for name, weight in wanted.items():
        local([weight])[0].copy_(local([given[name]])[0])


@torch.no_grad()
def _read_slices(network: nn.Module, stored: StoredWeights) -> None:
    """Read this process's rows of every weight from mapped files, and look at each number."""
    bad = {}
    for name, weight in _frozen(network).items():
        if name not in stored.tensors:
            raise ZooError(f"{stored.place}: lacks {name!r}")
        rows, counts = _own_rows(weight)
        # float64 is rounded twice, as where a network is loaded whole
        part = stored.tensors[name][rows].float()
        local([weight])[0].copy_(part)
        if counts and (number := count_not_finite(part)):
            bad[name] = number
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, bad)
    totals = Counter[str]()
    for one in found:
        totals.update(one)
    for name, number in totals.items():
        raise weights_not_finite(stored.place, name, number, stored.tensors[name].numel())


def _own_rows(weight: Any) -> tuple[slice, bool]:
    """The rows of a sharded weight that this process has, as `torch.chunk` deals them; and whether
    it is of the first of the groups that have a copy each."""
    mesh: DeviceMesh = weight.device_mesh
    size, place = mesh["shard"].size(), mesh.get_local_rank("shard")
    each = -(-len(weight) // size)
    rows = slice(min(place * each, len(weight)), min((place + 1) * each, len(weight)))
    assert rows.stop - rows.start == len(weight.to_local())
    return rows, mesh.get_local_rank("replicate") == 0


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
