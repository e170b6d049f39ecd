"""What a training would take, before anything is loaded: memory, network passes, FLOPs, downloads.

Networks are made on the meta device and run once with torch's fake tensors (shapes and types, no
data); a method's updates run without the networks' arithmetic. A plan for 14 B parameters takes
seconds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from salt_zoo.config.execution import ExecutionConfig, Offload
from salt_zoo.config.run import Resolved
from salt_zoo.config.training import TrainingConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.methods.meta import copied_network, on_meta
from salt_zoo.core.methods.roles import (
    check_offload,
    is_offloaded,
    with_averages,
    with_lora,
)
from salt_zoo.core.networks.precision import resolve_precision
from salt_zoo.core.protocols import Backbone, Method, NetworkSpec, Start
from salt_zoo.costs.flops import flops_of_passes
from salt_zoo.costs.passes import Passes, count_forward_passes
from salt_zoo.planning.codecs import codec_gib, resident_codecs
from salt_zoo.planning.dry_runs import counted_passes, planned_parts
from salt_zoo.planning.memory import (
    GIB,
    activation_gib,
    loading_gib,
    measured_networks,
    once,
    optimizer_states,
    shared_bases,
    shared_over,
    weights_and_gradients,
)
from salt_zoo.plugin.isolation.checked_roles import STUDENT_EMA
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.state.layout import Layout, make_layout

#: Parts that are there in a training pass only, when the codecs are not.
PASSING = ("activations", "gathered units", "KV memory")


@dataclass(frozen=True)
class Plan:
    """What one update and one device need.

    Attributes:
        parameters: of each role's network.
        micro_batch: videos that a device trains on at a time.
        memory: GiB on a device by part, each at its fullest.
        apart: GiB of `memory` that are never there at once: a KV memory is often gone before the
            activations of a whole video are there.
        states: GiB of optimizer states by role, which are together a part of `memory`.
        shard: devices that share one copy of the networks.
        sequence: devices that share one video.
        loading: GiB of main memory, at most, that each process needs while its networks are loaded,
            beside `host`; 0 where they are loaded on the device itself.
        host: GiB of main memory that each process keeps offloaded weights in.
        passes: per update over the whole batch, in videos: role -> `forward`, `backward`. Means
            over steps, since rollouts end at random steps.
        flops: of one update over the whole batch, with the recomputation of checkpointing.
        downloads: what must be fetched first: `source`, `parts`, `bytes`, `command`.
    """

    parameters: dict[str, int]
    micro_batch: int
    memory: dict[str, float]
    apart: float
    states: dict[str, float]
    shard: int
    sequence: int
    loading: float
    host: float
    passes: dict[str, dict[str, float]]
    flops: float
    downloads: list[dict[str, Any]] = field(default_factory=list)

    @property
    def peak(self) -> float:
        """GiB at the fullest moment: in training, or while a codec is in for a moment."""
        codecs = [gib for part, gib in self.memory.items() if part.startswith("codec ")]
        resident = sum(self.memory.values()) - sum(codecs)
        passing = sum(self.memory[part] for part in (*PASSING, "gradients") if part in self.memory)
        return resident - passing + max(passing - self.apart, *codecs, 0.0)


def plan_run(
    run: Resolved,
    zoo: Zoo,
    device: str = "cuda",
    processes: int | None = None,
    node: int | None = None,
) -> Plan:
    """The plan of a resolved run; see `make_plan`."""
    backbone, method = planned_parts(run, zoo)
    config, counted = run.config, counted_passes(run, zoo)
    resident = resident_codecs(run, backbone, zoo)
    return make_plan(
        backbone,
        method,
        config.training,
        config.execution,
        config.seed,
        device,
        processes,
        counted,
        node,
        resident,
    )


def flops_per_update(run: Resolved, zoo: Zoo) -> float:
    """FLOPs of one update of a run over its whole batch, averaged over its own updates.

    Without the recomputation of gradient checkpointing, which changes no result.
    """
    backbone, method = planned_parts(run, zoo)
    training = run.config.training
    flops = flops_of_passes(backbone, _roles(method, training), counted_passes(run, zoo).kinds)
    return training.batch_size * sum(flops.values())


def make_plan(
    backbone: Backbone,
    method: Method,
    config: TrainingConfig,
    execution: ExecutionConfig | None = None,
    seed: int = 0,
    device: str = "cuda",
    processes: int | None = None,
    counted: Passes | None = None,
    node: int | None = None,
    resident: Collection[str] = (),
) -> Plan:
    """Plan `method` on `backbone` under `config`. Loads no weights and asks no network.

    Args:
        backbone: for its networks, blocks and shapes. Its `downloads()` and `codec_modules()` are
            used if it has them.
        device: where it would run; decides the precision where the configuration says `auto`.
        processes: devices that split a batch, and the networks where `execution.shard` says so; by
            default as few as it needs.
        counted: the passes of an update, where they are known already.
        node: devices of one machine, over which `shard: auto` shards on CUDA; by default
            torchrun's, else 1.
        resident: those of the codecs that are on the device all the time; the others are for a
            moment.

    Raises:
        ZooError: the batch cannot be split over the processes and passes, or the backbone's
            networks cannot be made on the meta device.
    """
    execution = execution or ExecutionConfig()
    if processes is None:
        shard = 1 if execution.shard == "auto" else execution.shard
        processes = math.lcm(shard, execution.sequence)
    kind = torch.device(device).type
    layout = make_layout(execution, config.batch_size, processes, 0, kind, node)
    micro = layout.micro_batch
    roles = _roles(method, config)
    counted = counted or count_forward_passes(method, backbone, config.updates, seed)
    checkpointing = execution.gradient_checkpointing
    bf16 = resolve_precision(config.precision, kind) == "bf16"
    with on_meta(backbone):
        codecs = once(backbone, ("codecs",), lambda: codec_gib(backbone))
        networks = measured_networks(backbone, roles, bf16)
        kept = once(
            backbone,
            ("memory", micro, bf16, layout.sequence),
            functools.partial(_memory_bytes, backbone, micro, bf16, layout.sequence),
        )
        memory = weights_and_gradients(
            networks, roles, config, counted, layout.shard, execution.offload
        )
        memory |= shared_bases(backbone, roles, bf16, layout.shard, execution.offload)
    offloaded = _offloaded(roles, execution, backbone)
    host = sum(memory.pop(f"weights {name}", 0.0) for name in offloaded)
    states = optimizer_states(networks, roles, config, layout.shard)
    memory["optimizer states"] = sum(states.values())
    moments = _moments(backbone, roles, counted, micro, bf16, checkpointing, layout)
    memory["activations"] = max(held for held, _ in moments)
    memories = max(share for _, share in moments) * kept / GIB
    if memories:
        memory["KV memory"] = memories
    together = max(held + share * kept / GIB for held, share in moments)
    in_units = [one.gathered for name, one in networks.items()
                if layout.sharded or name in offloaded]  # fmt: skip
    if in_units:
        memory["gathered units"] = max(in_units) / GIB
    for name, gib in codecs.items():
        memory[f"resident {name}" if name in resident else f"codec {name}"] = gib
    passes = {
        role: {kind: count * config.batch_size for kind, count in counts.items()}
        for role, counts in counted.counts.items()
    }
    flops = flops_of_passes(backbone, roles, counted.kinds, checkpointing)
    return Plan(
        parameters={name: one.parameters for name, one in networks.items()},
        micro_batch=micro,
        memory=memory,
        apart=memory["activations"] + memories - together,
        states=states,
        shard=layout.shard,
        sequence=layout.sequence,
        loading=loading_gib(backbone, networks, roles, config.ema is not None) if in_units else 0.0,
        host=host,
        passes=passes,
        flops=config.batch_size * sum(flops.values()),
        downloads=backbone.downloads(),
    )


def _roles(method: Method, config: TrainingConfig) -> dict[str, NetworkSpec]:
    return with_averages(with_lora(method.roles(), config.lora))


def can_offload(run: Resolved, zoo: Zoo, kind: Offload) -> bool:
    """Whether a run may keep this kind of networks in main memory."""
    backbone, method = planned_parts(run, zoo)
    try:
        check_offload(with_lora(method.roles(), run.config.training.lora), [kind], backbone)
    except ZooError:
        return False
    return True


def _offloaded(
    roles: Mapping[str, NetworkSpec], execution: ExecutionConfig, backbone: Backbone
) -> list[str]:
    """The roles that `execution.offload` names, with the student's average."""
    check_offload(roles, execution.offload, backbone)
    every = {**roles, STUDENT_EMA: NetworkSpec(ema_of="student")}
    return [name for name, role in every.items() if is_offloaded(role, execution.offload)]


def _memory_bytes(backbone: Backbone, batch: int, bf16: bool, sequence: int) -> int:
    """Of a memory for a micro-batch of whole videos; 0 for a bidirectional backbone."""
    blocks = backbone.blocks()
    if blocks.new_memory is None and sequence == 1:  # else it is seen whether it can be shared
        return 0
    network = shared_over(copied_network(backbone), sequence, backbone)
    if bf16:  # as under autocast, in which keys and values are computed
        network = network.to(torch.bfloat16)
    memory = blocks.memory(network, torch.empty(batch, *backbone.latent_shape, device="meta"))
    return 0 if memory is None else memory.bytes()


def _moments(
    backbone: Backbone,
    roles: Mapping[str, NetworkSpec],
    counted: Passes,
    batch: int,
    bf16: bool,
    checkpointing: bool,
    layout: Layout,
) -> list[tuple[float, float]]:
    """GiB of activations, and the KV memories, that are there at the moments of an update."""

    def kept(role: str, times: int = 1) -> float:
        if roles[role].factory is not None:
            return batch * counted.held_bytes(role) / GIB
        # a block of a causal network keeps its share of what a whole video does
        start: Start = "teacher" if roles[role].start == "teacher" else "score"
        lora, sequence = roles[role].lora, layout.sequence
        return activation_gib(
            backbone, start, batch, bf16, checkpointing, layout.sharded, lora, sequence, times
        )

    moments = [
        (sum(n * kept(role, times) for role, times, n in moment.recorded), moment.memories)
        for moment in counted.held
    ]
    if not any(held for held, _ in moments):
        moments.append((kept("student"), max((share for _, share in moments), default=0.0)))
    return moments
