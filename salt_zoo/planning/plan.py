"""What a training would take, before anything is loaded: memory, network passes, FLOPs, downloads.

Networks are made on the meta device and run once with torch's fake tensors (shapes and types, no
data); a method's updates run without the networks' arithmetic. A plan for 14 B parameters takes
seconds.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.config.execution import ExecutionConfig
from salt_zoo.config.run import Resolved
from salt_zoo.config.training import OptimizerConfig, TrainingConfig
from salt_zoo.core.lora import LoraConfig, add_lora, trainable
from salt_zoo.core.meta import meta_network, network_of_role, on_meta
from salt_zoo.core.precision import with_precision
from salt_zoo.core.protocols import Backbone, Method, NetworkSpec, Start
from salt_zoo.core.roles import Originals, is_shared, source, with_averages, with_lora
from salt_zoo.costs.activations import peak_activation_bytes
from salt_zoo.costs.depth import over_depth
from salt_zoo.costs.flops import flops_of_passes
from salt_zoo.costs.passes import DryRun, Passes, count_forward_passes
from salt_zoo.plugin.checked_method import STUDENT_EMA, make_method
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.layout import make_layout
from salt_zoo.training.optimizers import make_optimizers

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What one update and one device need.

    Attributes:
        parameters: of each role's network.
        micro_batch: videos that a device trains on at a time.
        memory: GiB on a device by part. All parts but the codecs are there at once.
        activations: GiB that one training pass of the student's size keeps, `plain` and with
            gradient `checkpointing`.
        passes: per update over the whole batch, in videos: role -> `forward`, `backward`. Means
            over steps, since rollouts end at random steps.
        flops: of one update over the whole batch, with the recomputation of checkpointing.
        downloads: what must be fetched first: `source`, `parts`, `bytes`, `command`.
    """

    parameters: dict[str, int]
    micro_batch: int
    memory: dict[str, float]
    activations: dict[str, float]
    passes: dict[str, dict[str, float]]
    flops: float
    downloads: list[dict[str, Any]] = field(default_factory=list)

    @property
    def peak(self) -> float:
        """GiB at the fullest moment: in training, or while a codec is in for a moment."""
        codecs = [gib for part, gib in self.memory.items() if part.startswith("codec ")]
        resident = sum(self.memory.values()) - sum(codecs)
        passing = self.memory["activations"] + self.memory["gradients"]
        return resident - passing + max(passing, *codecs, 0.0)


def plan_run(run: Resolved, zoo: Zoo, device: str = "cuda", processes: int = 1) -> Plan:
    """The plan of a resolved run; see `make_plan`."""
    backbone, method = _parts(run, zoo)
    config, counted = run.config, _counted(run, backbone, zoo)
    return make_plan(
        backbone,
        method,
        config.training,
        config.execution,
        config.seed,
        device,
        processes,
        counted,
    )


def flops_per_update(run: Resolved, zoo: Zoo) -> float:
    """FLOPs of one update of a run over its whole batch, averaged over its own updates.

    Without the recomputation of gradient checkpointing, which changes no result.
    """
    backbone, method = _parts(run, zoo)
    training = run.config.training
    flops = flops_of_passes(backbone, _roles(method, training), _counted(run, backbone, zoo).kinds)
    return training.batch_size * sum(flops.values())


def make_plan(
    backbone: Backbone,
    method: Method,
    config: TrainingConfig,
    execution: ExecutionConfig | None = None,
    seed: int = 0,
    device: str = "cuda",
    processes: int = 1,
    counted: Passes | None = None,
) -> Plan:
    """Plan `method` on `backbone` under `config`. Loads no weights and asks no network.

    Args:
        backbone: for its networks, blocks and shapes. Its `downloads()` and `codec_modules()` are
            used if it has them.
        device: where it would run; decides the precision where the configuration says `auto`.
        processes: over how many devices a batch is split; the weights are on each.
        counted: the passes of an update, where they are known already.

    Raises:
        ZooError: the batch cannot be split over the processes and passes, or the backbone's
            networks cannot be made on the meta device.
    """
    execution = execution or ExecutionConfig()
    micro = make_layout(execution, config.batch_size, processes).micro_batch
    roles = _roles(method, config)
    counted = counted or count_forward_passes(method, backbone, config.updates, seed)
    checkpointing = execution.gradient_checkpointing
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device != "cpu")
    with on_meta(backbone):
        activations = {
            name: _activations(
                source(backbone, "score"),
                micro,
                bf16,
                name == "checkpointing",
                config.lora.get("student"),
            )
            for name in ("plain", "checkpointing")
        }
        codecs = _once(backbone, ("codecs",), lambda: _codecs(backbone))
        parameters, memory = _weights(backbone, roles, config, bf16, counted)
        kept = _memory_bytes(backbone, micro, bf16)
    if kept:
        memory["KV memory"] = kept / GIB
    memory["activations"] = _held(backbone, roles, counted, micro, bf16, checkpointing)
    memory |= codecs
    passes = {
        role: {kind: count * config.batch_size for kind, count in counts.items()}
        for role, counts in counted.counts.items()
    }
    flops = flops_of_passes(backbone, roles, counted.kinds, checkpointing)
    return Plan(
        parameters=parameters,
        micro_batch=micro,
        memory=memory,
        activations=dict(activations),
        passes=passes,
        flops=config.batch_size * sum(flops.values()),
        downloads=backbone.downloads(),
    )


def _parts(run: Resolved, zoo: Zoo) -> tuple[Backbone, Method]:
    config = run.config
    backbone = _backbone(zoo, config.backbone["name"], run.backbone.model_dump_json())
    return backbone, make_method(config.method["name"], run.method, zoo)


@functools.lru_cache(maxsize=4)
def _backbone(zoo: Zoo, name: str, options: str) -> Backbone:
    """One object for all runs with the same backbone, whose measurements they share."""
    checked = zoo.backbones.configure(name, json.loads(options), "backbone")
    made: Backbone = zoo.backbones.create(name, checked, zoo)
    return made


def _counted(run: Resolved, backbone: Any, zoo: Zoo) -> Passes:
    """The passes of one of a run's updates."""
    config, options = run.config, run.method.model_dump_json()
    return _dry(zoo, backbone, config.method["name"], options, config.seed).mean(
        config.training.updates
    )


@functools.lru_cache(maxsize=64)
def _dry(zoo: Zoo, backbone: Backbone, method: str, options: str, seed: int) -> DryRun:
    checked = zoo.methods.configure(method, json.loads(options), "method")
    return DryRun(make_method(method, checked, zoo), backbone, seed)


def _roles(method: Method, config: TrainingConfig) -> dict[str, NetworkSpec]:
    return with_averages(with_lora(method.roles(), config.lora))


_MEASURED: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _once(backbone: Backbone, key: Any, measure: Callable[[], Any]) -> Any:
    """Measure each thing of a backbone once: the arms of a study have the same one."""
    known = _MEASURED.setdefault(backbone, {})
    if key not in known:
        known[key] = measure()
    return known[key]


def _memory_bytes(backbone: Backbone, batch: int, bf16: bool) -> int:
    """Of a memory for a micro-batch of whole videos; 0 for a bidirectional backbone."""
    network = meta_network(backbone)
    if bf16:  # as under autocast, in which keys and values are computed
        network = network.to(torch.bfloat16)
    memory = backbone.blocks().memory(
        network, torch.empty(batch, *backbone.latent_shape, device="meta")
    )
    return 0 if memory is None else memory.bytes()


def _weights(
    backbone: Backbone,
    roles: Mapping[str, NetworkSpec],
    config: TrainingConfig,
    bf16: bool,
    counted: Passes,
) -> tuple[dict[str, int], dict[str, float]]:
    """Parameters by role; GiB of weights by role, of gradients and of optimizer states."""
    networks = {name: network_of_role(backbone, role) for name, role in roles.items()}
    parameters = {name: sum(p.numel() for p in one.parameters()) for name, one in networks.items()}
    trainable_size = {
        name: sum(_size(p) for _, p in trainable(one)) / GIB for name, one in networks.items()
    }
    for name, role in roles.items():  # frozen ones are held as a training holds them
        if role.learning_rate is None and role.ema_of is None:
            _hold(networks[name], bf16)
    size = {name: _bytes(one) / GIB for name, one in networks.items()}
    bases: dict[str, float] = {}
    if any(role.lora is not None for role in roles.values()):
        bases = _bases(backbone, roles, bf16)
        for name, role in roles.items():
            if is_shared(role):
                size[name] = trainable_size[name] if role.lora is not None else 0.0
    memory = {f"weights {role}": gib for role, gib in size.items() if gib} | bases
    if config.ema:
        memory[f"weights {STUDENT_EMA}"] = size["student"]
    trained = {name: role for name, role in roles.items() if role.learning_rate is not None}
    # of one update at a time
    memory["gradients"] = max(
        sum(trainable_size[name] for name in update) for update in counted.together
    )
    states = 0.0
    for name, role in trained.items():
        options = config.optimizers.get(name, OptimizerConfig())
        assert role.learning_rate is not None
        for optimizer in make_optimizers(networks[name], options, role.learning_rate):
            # AdamW keeps two moments, Muon one
            moments = 2 if isinstance(optimizer, torch.optim.AdamW) else 1
            kept = sum(_size(p) for group in optimizer.param_groups for p in group["params"])
            states += moments * kept / GIB
    memory["optimizer states"] = states
    return parameters, memory


def _hold(network: nn.Module, bf16: bool) -> None:
    with_precision(network, "bf16" if bf16 else "fp32", "meta", frozen=True)


def _bases(backbone: Backbone, roles: Mapping[str, NetworkSpec], bf16: bool) -> dict[str, float]:
    """GiB of the frozen weights that LoRAs and frozen roles have in common, each once."""
    key_of = Originals(backbone, ()).key
    users: dict[Any, list[str]] = {}
    for name, role in roles.items():
        if is_shared(role) and role.start is not None:
            same = role.start == "student" and backbone.student_is_score
            users.setdefault(key_of("score" if same else role.start), []).append(name)
    found = {}
    for names in users.values():
        network = network_of_role(backbone, replace(roles[names[0]], lora=None))
        _hold(network, bf16)
        found[f"weights shared by {', '.join(names)}"] = _bytes(network) / GIB
    return found


def _codecs(backbone: Backbone) -> dict[str, float]:
    """GiB of text encoder and VAE, where the backbone has them."""
    modules = backbone.codec_modules()
    return {f"codec {name}": _bytes(module) / GIB for name, module in modules.items()}


def _held(
    backbone: Backbone,
    roles: Mapping[str, NetworkSpec],
    counted: Passes,
    batch: int,
    bf16: bool,
    checkpointing: bool,
) -> float:
    """GiB of the activations that are there at the peak of an update."""

    def kept(role: str) -> float:
        if roles[role].factory is not None:
            return batch * counted.held_bytes(role) / GIB
        # a block of a causal network keeps its share of what a whole video does
        start: Start = "teacher" if roles[role].start == "teacher" else "score"
        whose, lora = source(backbone, start), roles[role].lora
        return _activations(whose, batch, bf16, checkpointing, lora)

    moments = [sum(n * kept(role) for role, n in moment if n) for moment in counted.held]
    return max(moments, default=0.0) or kept("student")


def _activations(
    whose: Backbone,
    batch: int,
    bf16: bool,
    checkpointing: bool,
    lora: LoraConfig | None = None,
) -> float:
    """GiB of a training pass over whole videos by a backbone's own kind of network."""

    def measure() -> float:
        with on_meta(whose):
            condition = whose.encode_prompts([""])

            def peak(network: Any) -> tuple[float]:
                return (peak_activation_bytes(network, condition, whose.latent_shape, batch, bf16),)

            network = meta_network(whose, checkpointing)
            if lora is not None:
                add_lora(network, lora, "training.lora")
            (found,) = over_depth(network, peak)
            return found / GIB

    found: float = _once(whose, ("activations", batch, bf16, checkpointing, lora), measure)
    return found


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bytes(module: nn.Module) -> int:
    return sum(_size(p) for p in module.parameters())
