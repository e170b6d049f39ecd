"""The frozen weights of a run with LoRAs: one copy for all roles that start from the same."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from salt_zoo.core.methods.roles import Originals, is_shared
from salt_zoo.core.networks.lora import copy_sharing, lora_layers, trainable
from salt_zoo.core.networks.precision import ResolvedPrecision, with_precision
from salt_zoo.core.protocols import Backbone, NetworkSpec


class FrozenBases:
    """Makes the networks of the roles that are LoRAs or frozen, on common weights.

    Without a LoRA among the roles it makes none. Networks that start elsewhere share the weights
    that have the same name and the same numbers: those of a causal student that starts as the
    bidirectional teacher are the teacher's.

    Attributes:
        originals: for all other roles.
    """

    def __init__(
        self,
        backbone: Backbone,
        roles: Mapping[str, NetworkSpec],
        precision: ResolvedPrecision,
        offload: Sequence[str] = (),
    ) -> None:
        self._backbone, self._precision, self._offload = backbone, precision, offload
        self._used = any(role.lora is not None for role in roles.values())
        first: dict[Hashable, NetworkSpec] = {}
        others = []
        names = Originals(backbone, ())
        for role in roles.values():
            if not self.is_shared(role):
                others.append(role)
            elif role.start and not role.follows:
                first.setdefault(names.key(role.start), role)
        self.originals = Originals(backbone, [*others, *first.values()])
        self._made: dict[Hashable, nn.Module] = {}

    def is_shared(self, role: NetworkSpec) -> bool:
        """Whether a role's network, or the one it follows, has weights in common with others."""
        return self._used and is_shared(role, self._offload)

    def network(self, role: NetworkSpec) -> Any:
        """A network with modules of its own on the common weights, all of them frozen."""
        assert role.start is not None
        key = self.originals.key(role.start)
        if key not in self._made:
            device = torch.device(self._backbone.device)
            network = self.originals.network(role.start).to(device)
            network = with_precision(network, self._precision, device, frozen=True)
            for other in self._made.values():
                share_equal(network, other)
            self._made[key] = network
        return copy_sharing(self._made[key])


@torch.no_grad()
def share_equal(network: nn.Module, other: nn.Module) -> None:
    """Replace weights of `network` by those of `other` with the same name, type and numbers."""
    theirs = dict(other.named_parameters())
    for path, module in network.named_modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            known = theirs.get(f"{path}.{name}" if path else name)
            if known is not None and known.dtype == weight.dtype and torch.equal(known, weight):
                setattr(module, name, known)


def share_shards(
    network: nn.Module, given: Mapping[str, nn.Parameter], shards: dict[int, Any]
) -> None:
    """Let a network that has just been sharded use the shards of weights that another one had, too.

    Args:
        given: its weights before, by name.
        shards: of the networks before it, by the id of the common weight (which a `FrozenBases`
            keeps alive); those of this one are added.
    """
    own = dict(network.named_parameters())
    adapters = dict(trainable(network)) if lora_layers(network) else {}
    common = {name: id(weight) for name, weight in given.items() if name not in adapters}
    known = {name: shards[key] for name, key in common.items() if key in shards}
    for name, key in common.items():
        shards.setdefault(key, own[name])
    network.load_state_dict(known, strict=False, assign=True)
