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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.activations import peak_of_pass
from salt_zoo.errors import ZooError
from salt_zoo.passes import DryRun, passes_per_update
from salt_zoo.protocols import Backbone, Method, Role
from salt_zoo.run import Resolved
from salt_zoo.training.config import OptimizerConfig, TrainingConfig
from salt_zoo.training.flops import flops_of_passes, meta_network, on_meta, source
from salt_zoo.training.networks import STUDENT_AVERAGE
from salt_zoo.training.optimizers import make_optimizers

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What one update and one device need.

    Attributes:
        parameters: of one network; all roles have the same.
        micro_batch: videos that a device trains on at a time.
        memory: GiB on a device by part. All parts but the codecs are there at once.
        activations: GiB that one training pass keeps, `plain` and with gradient `checkpointing`.
        passes: per update over the whole batch, in videos: role -> `forward`, `backward`. Means
            over steps, since rollouts end at random steps.
        flops: of one update over the whole batch, with the recomputation of checkpointing.
        downloads: what must be fetched first: `source`, `parts`, `bytes`, `command`.
    """

    parameters: int
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


def plan_run(run: Resolved, zoo: Any, device: str = "cuda", processes: int = 1) -> Plan:
    """The plan of a resolved run; see `make_plan`."""
    backbone, method = _parts(run, zoo)
    return make_plan(backbone, method, run.config.training, run.config.seed, device, processes)


def flops_per_update(run: Resolved, zoo: Any) -> float:
    """FLOPs of one update of a run over its whole batch, averaged over its own updates.

    Without the recomputation of gradient checkpointing, which changes no result.
    """
    backbone, method = _parts(run, zoo)
    training = run.config.training
    options = run.method.model_dump_json()
    whose: Any = backbone
    dry = _dry(zoo, whose, run.config.method["name"], options, run.config.seed)
    passes = dry.mean(training.updates).kinds
    flops = flops_of_passes(backbone, _starts(method), passes)
    return training.batch_size * sum(flops.values())


def make_plan(
    backbone: Backbone,
    method: Method,
    config: TrainingConfig,
    seed: int = 0,
    device: str = "cuda",
    processes: int = 1,
) -> Plan:
    """Plan `method` on `backbone` under `config`. Loads no weights and asks no network.

    Args:
        backbone: for its networks, blocks and shapes. Its `downloads()` and `codec_modules()` are
            used if it has them.
        device: where it would run; decides the precision where the configuration says `auto`.
        processes: over how many devices a batch is split; the weights are on each.

    Raises:
        ZooError: the batch cannot be split over the processes and accumulation steps, or the
            backbone's networks cannot be made on the meta device.
    """
    share = processes * config.gradient_accumulation
    if config.batch_size % share:
        raise ZooError(
            f"training.batch_size: {config.batch_size} cannot be split over {processes} processes "
            f"x {config.gradient_accumulation} accumulation steps"
        )
    micro = config.batch_size // share
    roles = dict(method.roles())
    checkpointing = config.gradient_checkpointing
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device != "cpu")
    with on_meta(backbone):
        activations = _once(backbone, (micro, bf16), lambda: _activations(backbone, micro, bf16))
        codecs = _once(backbone, ("codecs",), lambda: _codecs(backbone))
        memory = _weights(backbone, roles, config)
        kept = _memory_bytes(backbone, micro, bf16)
    if kept:
        memory["KV memory"] = kept / GIB
    counted = passes_per_update(method, backbone, config.updates, seed)
    graphs = max((sum(n for _, n in moment) for moment in counted.held), default=0.0) or 1.0
    memory["activations"] = graphs * activations["checkpointing" if checkpointing else "plain"]
    memory |= codecs
    passes = {
        role: {kind: count * config.batch_size for kind, count in counts.items()}
        for role, counts in counted.counts.items()
    }
    flops = flops_of_passes(backbone, _starts(method), counted.kinds, checkpointing)
    return Plan(
        parameters=round(memory["weights student"] * GIB / 4),
        micro_batch=micro,
        memory=memory,
        activations=dict(activations),
        passes=passes,
        flops=config.batch_size * sum(flops.values()),
        downloads=list(getattr(backbone, "downloads", list)()),
    )


def _parts(run: Resolved, zoo: Any) -> tuple[Backbone, Method]:
    config = run.config
    backbone = _backbone(zoo, config.backbone["name"], run.backbone.model_dump_json())
    return backbone, zoo.methods.create(config.method["name"], run.method, zoo)


@functools.lru_cache(maxsize=4)
def _backbone(zoo: Any, name: str, options: str) -> Backbone:
    """One object for all runs with the same backbone, whose measurements they share."""
    checked = zoo.backbones.configure(name, json.loads(options), "backbone")
    made: Backbone = zoo.backbones.create(name, checked, zoo)
    return made


@functools.lru_cache(maxsize=64)
def _dry(zoo: Any, backbone: Any, method: str, options: str, seed: int) -> DryRun:
    checked = zoo.methods.configure(method, json.loads(options), "method")
    return DryRun(zoo.methods.create(method, checked, zoo), backbone, seed)


def _starts(method: Method) -> dict[str, Any]:
    return {name: role.start for name, role in method.roles().items()}


_MEASURED: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _once(backbone: Backbone, key: Any, measure: Callable[[], dict[str, float]]) -> Any:
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
    backbone: Backbone, roles: Mapping[str, Role], config: TrainingConfig
) -> dict[str, float]:
    """GiB of weights by role, and of gradients and optimizer states."""
    network = meta_network(backbone)
    size = _bytes(network) / GIB
    memory = {f"weights {role}": size for role in roles}
    if config.average:
        memory[f"weights {STUDENT_AVERAGE}"] = size
    memory["gradients"] = size  # of one role at a time
    states = 0.0
    for name, role in roles.items():
        if role.learning_rate is None:
            continue
        options = config.optimizers.get(name, OptimizerConfig())
        for optimizer in make_optimizers(network, options, role.learning_rate):
            # AdamW keeps two moments, Muon one
            moments = 2 if isinstance(optimizer, torch.optim.AdamW) else 1
            kept = sum(_size(p) for group in optimizer.param_groups for p in group["params"])
            states += moments * kept / GIB
    memory["optimizer states"] = states
    return memory


def _codecs(backbone: Backbone) -> dict[str, float]:
    """GiB of text encoder and VAE, where the backbone has them."""
    modules: Mapping[str, nn.Module] = getattr(backbone, "codec_modules", dict)()
    return {f"codec {name}": _bytes(module) / GIB for name, module in modules.items()}


def _activations(backbone: Backbone, batch: int, bf16: bool) -> dict[str, float]:
    """GiB of activations without and with gradient checkpointing."""
    condition = backbone.encode_prompts([""])
    found = {}
    for name in ("plain", "checkpointing"):
        # the largest pass of a method is over whole videos, the teacher's or the fake score's
        network = meta_network(source(backbone, "teacher"), name == "checkpointing")
        found[name] = peak_of_pass(network, condition, backbone.latent_shape, batch, bf16) / GIB
    return found


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bytes(module: nn.Module) -> int:
    return sum(_size(p) for p in module.parameters())
