"""FLOPs of network passes, by torch's counter on the meta device: nothing is computed, and the
counter sees the attention, which it misses where a CPU runs it fused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from salt_zoo.core.base.facts import facts
from salt_zoo.core.methods.meta import kept_network, on_meta
from salt_zoo.core.methods.roles import source
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.networks.condition import example
from salt_zoo.core.networks.copies import copied
from salt_zoo.core.networks.lora import LoraConfig, add_lora, trainable
from salt_zoo.core.protocols import Backbone, Condition, NetworkSpec, Start
from salt_zoo.costs.counter import AnyPass, Pass
from salt_zoo.costs.depth import over_depth
from salt_zoo.costs.forms import RememberedForms
from salt_zoo.costs.module_passes import ModulePass

#: FLOPs of a forward and of the backward pass.
Flops = tuple[float, float]


def flops_of_passes(
    backbone: Backbone,
    roles: Mapping[str, NetworkSpec],
    passes: Mapping[str, Mapping[AnyPass, float]],
    checkpointing: bool = False,
) -> dict[str, float]:
    """FLOPs by role of counted passes: the one figure of plans, budgets and finished runs.

    Args:
        roles: what kind of network each has (`salt_zoo.core.methods.roles.with_averages`).
        passes: by role, as a `PassCounter` counts them.
        checkpointing: with the recomputation of gradient checkpointing, which changes no result
            and so is no part of a budget.

    Raises:
        ZooError: the backbone's networks cannot be made on the meta device.
    """
    found = {}
    for role, kinds in passes.items():
        total = 0.0
        for kind, number in kinds.items():
            if isinstance(kind, ModulePass):
                total += number * (kind.forward + kind.backward)
                continue
            start = roles[role].start
            assert start is not None
            lora = roles[role].lora
            total += number * sum(flops_of_pass(backbone, start, kind, checkpointing, lora))
        found[role] = total
    return found


def flops_of_pass(
    backbone: Backbone,
    start: Start,
    kind: Pass,
    checkpointing: bool = False,
    lora: LoraConfig | None = None,
) -> Flops:
    """FLOPs of one pass over one video by a network that starts as `start`; measured once for all
    backbones that are made alike.

    Args:
        lora: its adapters, whose gradients are then all that a backward pass takes of weights.
    """
    whose = source(backbone, start)
    known = facts(whose)
    key = (kind, checkpointing and kind.recorded, lora)
    if key not in known:
        with on_meta(whose):
            condition = example(whose)

            network = kept_network(whose, checkpointing and kind.recorded)
            if lora is not None:
                network = copied(network)
                add_lora(network, lora, "training.lora")

            def measure(network: Any) -> Flops:
                blocks = whose.blocks(network)
                return _measure(network, kind, condition, whose.latent_shape, blocks)

            # where a pass ends inside, the place counts all blocks
            known[key] = over_depth(network, measure) if kind.depth == 1 else measure(network)
    flops: Flops = known[key]
    return flops


def _measure(
    network: Any, kind: Pass, condition: Condition, shape: tuple[int, ...], blocks: Blocks
) -> Flops:
    """Of one whole video: a pass over fewer or more frames counts by their number."""
    for _, weight in trainable(network):
        weight.requires_grad_(kind.weights)
    channels, frames, height, width = shape
    text = {name: value[:1].to("meta") for name, value in condition.items()}

    def inputs(count: int) -> tuple[Any, ...]:
        x = torch.zeros(1, channels, count, height, width, device="meta")
        return x, torch.full((1, count)[: kind.times], 0.5, device="meta"), text

    if kind.frames is not None:
        further = () if kind.depth == 1 else (kind.depth,)
        forward, backward = _count(network, kind, (*inputs(kind.frames), *further))
        share = frames / kind.frames
        return share * forward, share * backward

    parts = blocks.split(frames)
    last = len(parts) - 1
    found: dict[int, Flops] = {}

    def measure(wanted: set[int]) -> None:
        memory = blocks.memory(network, torch.empty(1, *shape, device="meta"))
        for block, part in enumerate(parts):
            given = (*inputs(part.stop - part.start), memory)
            if block == 0 and not kind.recorded:
                with torch.no_grad():
                    network(*given)  # a memory may keep what it has of the prompt
            if block in wanted:
                found[block] = _count(network, kind, given)
            if block < last:
                _update_cache(network, *given)

    measure({0, last // 2, last})
    if not _on_a_line(found):
        measure(set(range(len(parts))) - found.keys())
    whole = [
        float(
            np.interp(range(len(parts)), sorted(found), [found[k][i] for k in sorted(found)]).sum()
        )
        for i in (0, 1)
    ]
    return whole[0], whole[1]


def _on_a_line(found: Mapping[int, Flops]) -> bool:
    """Whether FLOPs grow evenly from block to block, as attention does with what is remembered;
    not in a memory that is soon full, or after a first block of another size."""
    places = sorted(found)
    values = np.array([found[place] for place in places])
    line = np.stack(
        [np.interp(places, [places[0], places[-1]], column[[0, -1]]) for column in values.T], axis=1
    )
    return bool(np.allclose(values, line, rtol=1e-6))


@torch.no_grad()
def _update_cache(network: Any, x: Tensor, t: Tensor, text: Condition, memory: Any) -> None:
    """Commit a block without the pass: what a memory holds has no say in FLOPs."""
    network.forward = lambda x, *others, **options: x
    try:
        network.update_cache(x, t, text, memory)
    finally:
        del network.forward


def _count(network: nn.Module, kind: Pass, given: tuple[Any, ...]) -> Flops:
    call: Any = network if kind.depth == 1 else network.features
    given[0].requires_grad_(kind.inputs)
    with RememberedForms() as counter, torch.set_grad_enabled(kind.recorded):
        out = call(*given, **dict(kind.options))
        forward = counter.flops
        if kind.recorded:
            out.sum().backward()
        both = counter.flops
    network.zero_grad()
    given[0].requires_grad_(False)
    return float(forward), float(both - forward)
