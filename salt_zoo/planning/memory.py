"""What the networks of a run take on one device: weights, gradients, optimizer states, activations,
and what a sharded network gathers."""

from __future__ import annotations

import functools
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.config.training import OptimizerConfig, TrainingConfig
from salt_zoo.core.base.facts import facts
from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.methods.meta import kept_network, network_of_role, on_meta
from salt_zoo.core.methods.roles import Originals, is_shared, source
from salt_zoo.core.networks.condition import example
from salt_zoo.core.networks.copies import copied
from salt_zoo.core.networks.lora import LoraConfig, add_lora, trainable
from salt_zoo.core.networks.precision import with_precision
from salt_zoo.core.networks.token_sharing import share_tokens
from salt_zoo.core.protocols import Backbone, NetworkSpec, Start
from salt_zoo.costs.activations import peak_activation_bytes
from salt_zoo.costs.depth import over_depth
from salt_zoo.costs.passes import Passes
from salt_zoo.plugin.isolation.checked_roles import STUDENT_EMA
from salt_zoo.training.state.eight_bit import moment_bytes
from salt_zoo.training.state.optimizers import make_optimizers
from salt_zoo.training.state.sharding import HasShardUnits
from salt_zoo.training.state.sliced_loading import can_load_slices

GIB = 2**30

_MEASURED: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def once(backbone: Backbone, key: Any, measure: Callable[[], Any]) -> Any:
    """Measure each thing of a backbone once: the arms of a study have the same one."""
    known = _MEASURED.setdefault(backbone, {})
    if key not in known:
        known[key] = measure()
    return known[key]


@dataclass(frozen=True)
class MeasuredNetwork:
    """The network of a role, on the meta device and held as a training holds it.

    Attributes:
        network: without data.
        parameters: their number.
        is_head: it has a factory: a head, which is small and stays whole.
        gathered: bytes that a pass of the sharded network holds beside its shards.
    """

    network: nn.Module
    parameters: int
    is_head: bool
    gathered: int

    @functools.cached_property
    def weights(self) -> Counter[_Weight]:
        """All of them, by their forms, of which there are few: a search for what fits asks again
        and again."""
        return _counted(self.network.parameters())

    @functools.cached_property
    def trained(self) -> Counter[_Weight]:
        """Those that training changes, if it trains the network."""
        return _counted(weight for _, weight in trainable(self.network))

    def held(self, weights: Counter[_Weight], shard: int) -> int:
        """Bytes of them on the first of `shard` devices."""
        shard = 1 if self.is_head else shard
        return sum(number * local_size(weight, shard) for weight, number in weights.items())


def measured_networks(
    backbone: Backbone, roles: Mapping[str, NetworkSpec], bf16: bool
) -> dict[str, MeasuredNetwork]:
    """The networks of a run by role.

    Raises:
        ZooError: one cannot be made on the meta device.
    """
    found = {}
    for name, role in roles.items():
        measure = functools.partial(_measured, backbone, role, bf16)
        if role.factory is not None or role.start is None:
            found[name] = measure()
            continue
        # nothing that is read of it depends on anything else of the role
        key = ("network", role.lora, role.is_frozen, _is_still(role), bf16)
        found[name] = once(source(backbone, role.start), key, measure)
    return found


def _measured(backbone: Backbone, role: NetworkSpec, bf16: bool) -> MeasuredNetwork:
    if role.factory is None and role.start and not role.is_frozen and role.lora is None:
        with on_meta(whose := source(backbone, role.start)):
            network = kept_network(whose)  # as it is
    else:
        network = network_of_role(backbone, role)
    count = sum(p.numel() for p in network.parameters())
    if role.is_frozen:
        with_precision(network, "bf16" if bf16 else "fp32", "meta", frozen=True)
    head = role.factory is not None
    needs = 0 if head else gathered_bytes(network, bf16 and not role.is_frozen, _is_still(role))
    return MeasuredNetwork(network, count, head, needs)


def _is_still(role: NetworkSpec) -> bool:
    """Whether no weights of its own have gradients: only trained ones do, and a LoRA's base has
    none."""
    return role.learning_rate is None or role.lora is not None


def weights_and_gradients(
    networks: Mapping[str, MeasuredNetwork],
    roles: Mapping[str, NetworkSpec],
    config: TrainingConfig,
    counted: Passes,
    shard: int,
    offload: Sequence[str] = (),
) -> dict[str, float]:
    """GiB on each device of the weights by role, and of the gradients; those that are offloaded
    have their weights here, too."""
    size = {name: one.held(one.weights, shard) / GIB for name, one in networks.items()}
    trained = {name: one.held(one.trained, shard) / GIB for name, one in networks.items()}
    if any(role.lora is not None for role in roles.values()):
        for name, role in roles.items():  # the rest is counted by `shared_bases`
            if is_shared(role, offload):
                size[name] = trained[name] if role.lora is not None else 0.0
    memory = {f"weights {role}": gib for role, gib in size.items() if gib}
    if config.ema:
        memory[f"weights {STUDENT_EMA}"] = size["student"]
    # of one update at a time
    memory["gradients"] = max(sum(trained[name] for name in update) for update in counted.together)
    return memory


def shared_bases(
    backbone: Backbone,
    roles: Mapping[str, NetworkSpec],
    bf16: bool,
    shard: int,
    offload: Sequence[str] = (),
) -> dict[str, float]:
    """GiB on each device of the frozen weights that LoRAs and frozen roles have in common, each
    once; nothing where no role is a LoRA."""
    if all(role.lora is None for role in roles.values()):
        return {}
    key_of = Originals(backbone, ()).key
    users: dict[Any, list[str]] = {}
    for name, role in roles.items():
        if is_shared(role, offload) and role.start is not None:
            same = role.start == "student" and backbone.student_is_score
            users.setdefault(key_of("score" if same else role.start), []).append(name)
    found = {}
    for names in users.values():
        network = network_of_role(backbone, replace(roles[names[0]], lora=None))
        with_precision(network, "bf16" if bf16 else "fp32", "meta", frozen=True)
        held = sum(n * local_size(p, shard) for p, n in _counted(network.parameters()).items())
        found[f"weights shared by {', '.join(names)}"] = held / GIB
    return found


def loading_gib(
    backbone: Backbone,
    networks: Mapping[str, MeasuredNetwork],
    roles: Mapping[str, NetworkSpec],
    ema: bool,
) -> float:
    """GiB of main memory that a process of a sharded run needs while its networks are made.

    By slices it is one weight at a time. Else each network starts as a whole copy in float32, and
    the largest one is there with its copies for the roles that share its weights and for what
    follows it.
    """
    if can_load_slices(backbone, roles):
        weights = (shape for one in networks.values() for shape, _ in one.weights)
        return max(4 * math.prod(shape) for shape in weights) / GIB
    following = [role.follows for role in roles.values() if role.follows]
    following += ["student"] if ema else []
    copies = {
        name: (2 + following.count(name)) * 4 * networks[name].parameters
        for name, role in roles.items()
        if role.follows is None and role.factory is None
    }
    return max(copies.values(), default=0) / GIB


def optimizer_states(
    networks: Mapping[str, MeasuredNetwork],
    roles: Mapping[str, NetworkSpec],
    config: TrainingConfig,
    shard: int,
) -> dict[str, float]:
    """GiB on each device of the optimizer states of the roles that are trained."""
    states = {}
    for name, role in roles.items():
        if role.learning_rate is None:
            continue
        options = config.optimizers.get(name, OptimizerConfig())
        total = 0
        one = networks[name]
        if options.name == "adamw8bit":  # without torchao, which the machine need not have
            states[name] = sum(
                number * moment_bytes(local_size((shape, 1), 1 if one.is_head else shard))
                for (shape, _), number in one.trained.items()
            ) / GIB  # fmt: skip
            continue
        for optimizer in make_optimizers(one.network, options, role.learning_rate):
            # AdamW keeps two moments, Muon one
            moments = 2 if isinstance(optimizer, torch.optim.AdamW) else 1
            weights = (p for group in optimizer.param_groups for p in group["params"])
            total += moments * one.held(_counted(weights), shard)
        states[name] = total / GIB
    return states


def gathered_bytes(network: nn.Module, bf16: bool, frozen: bool) -> int:
    """Bytes that a pass of a sharded network holds beside its shards (`training.sharding.shard`).

    The root's own weights stay gathered through a pass. Of the units, one is gathered while the
    next one's transfer is under way; in a backward pass the gradients of one unit and two buffers
    of their reduction, in float32, are there, too.

    Args:
        bf16: weights are gathered in bfloat16, not in what they are held in.
        frozen: the weights take no gradients.
    """

    def size(parameters: Iterable[Tensor]) -> int:
        return sum(p.numel() * (2 if bf16 else p.element_size()) for p in parameters)

    units = list(network.shard_units()) if isinstance(network, HasShardUnits) else []
    inside = {id(p) for unit in units for p in unit.parameters()}
    root = [p for p in network.parameters() if id(p) not in inside]
    largest = max(units, key=lambda unit: size(unit.parameters()), default=None)
    unit = list(largest.parameters()) if largest is not None else root
    gathered = 2 * size(unit)
    if not frozen:
        gathered += size(unit) + 2 * sum(4 * p.numel() for p in unit)
    return gathered + (size(root) if largest is not None else 0)


def activation_gib(
    backbone: Backbone,
    start: Start,
    batch: int,
    bf16: bool,
    checkpointing: bool,
    sharded: bool,
    lora: LoraConfig | None = None,
    sequence: int = 1,
    times: int = 1,
) -> float:
    """GiB of a training pass over whole videos by a network that starts as `start`, in each of the
    `sequence` processes that make it together; measured once for all backbones that are made alike.
    `times`: 1 is one time a video, 2 one a frame, of which each block keeps its modulations for
    every token."""
    whose, gathered = source(backbone, start), bf16 and sharded  # float32 makes no difference
    known = facts(whose)
    with on_meta(whose):
        network = kept_network(whose, checkpointing)
        form = once(whose, ("form", checkpointing), lambda: _form(network))
        shape = whose.latent_shape
        split = (batch, bf16, checkpointing, gathered, lora, sequence, times)
        key = ("activations", *split, shape, form)
        if key not in known:
            condition = example(whose)

            def peak(network: Any) -> tuple[float]:
                return (
                    peak_activation_bytes(network, condition, shape, batch, bf16, gathered, times),
                )

            if lora is not None or sequence > 1:
                network = copied(network)
            if lora is not None:
                add_lora(network, lora, "training.lora")
            shared_over(network, sequence, whose)
            (most,) = over_depth(network, peak)
            known[key] = most / GIB
    found: float = known[key]
    return found


def _form(network: nn.Module) -> tuple[Any, ...]:
    return tuple((name, weight.shape) for name, weight in network.named_parameters())


def shared_over(network: Any, processes: int, backbone: Backbone) -> Any:
    """The network, as one of `processes` that share a video has it, for shapes."""
    if processes > 1:
        share_tokens(network, SequenceGroup(processes), backbone.latent_shape)
    return network


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor."""
    return tensor.numel() * tensor.element_size()


#: Shape of a weight, and bytes of each of its numbers.
_Weight = tuple[tuple[int, ...], int]


def _counted(weights: Iterable[Tensor]) -> Counter[_Weight]:
    return Counter((tuple(weight.shape), weight.element_size()) for weight in weights)


def local_size(weight: _Weight, shard: int) -> int:
    """Bytes of the first device's part of a tensor whose rows are dealt over `shard` devices."""
    shape, each = weight
    if shard == 1 or not shape:
        return math.prod(shape) * each
    return math.ceil(shape[0] / shard) * math.prod(shape[1:]) * each
