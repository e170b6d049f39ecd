"""How often a method evaluates each of its networks, found by running its updates without the
networks' arithmetic."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from salt_zoo.core.protocols import (
    Backbone,
    Batch,
    Condition,
    FeatureExtractor,
    Method,
    NeedsTrajectories,
    TrainStep,
)
from salt_zoo.core.rng import KeyedRNG, step_rng
from salt_zoo.core.roles import source
from salt_zoo.costs.counter import Pass, PassCounter, in_videos
from salt_zoo.costs.flops import meta_network, on_meta

_MOST = 400  # updates that are looked at
_SIZE = 2  # height and width of the videos


@dataclass(frozen=True)
class Passes:
    """Passes for each video of the batch.

    Attributes:
        kinds: role -> passes of each kind.
        held: role -> recorded passes, at every moment at which a update goes backward: what its
            activations are those of.
    """

    kinds: Mapping[str, Mapping[Pass, float]]
    held: frozenset[tuple[tuple[str, float], ...]]

    @property
    def counts(self) -> dict[str, dict[str, float]]:
        """Role -> `forward` and `backward`, as `PassCounter.counts`."""
        return {role: in_videos(passes) for role, passes in self.kinds.items()}


def count_forward_passes(
    method: Method, backbone: Backbone, updates: int = _MOST, seed: int = 0
) -> Passes:
    """The passes of one of a method's updates, the mean over the first `updates`.

    Draws are keyed as in the run itself, so that rollouts end where they will end. Of more than
    400 updates so many are looked at, evenly spread: some terms start late.
    """
    return DryRun(method, backbone, seed).mean(updates)


class DryRun:
    """A method's updates on its backbone's own networks and memories, for one small video.

    Only the networks' arithmetic is left out: their weights take no memory and `forward` answers
    with a multiple of its input. What they can and cannot do, what they remember and which passes
    they make of each other is their own.
    """

    def __init__(self, method: Method, backbone: Backbone, seed: int) -> None:
        self.method, self.backbone, self.seed = method, backbone, seed
        channels, frames = backbone.latent_shape[:2]
        self.shape = (channels, frames, _SIZE, _SIZE)
        self.networks: dict[str, Any] = {}
        for name, role in method.roles().items():
            whose = source(backbone, role.start)
            with on_meta(whose):
                self.networks[name] = _without_arithmetic(meta_network(whose))
        with on_meta(backbone):
            text = backbone.encode_prompts([""])
        self.condition = {name: torch.zeros([1] * value.ndim) for name, value in text.items()}
        self.counter = PassCounter(self.networks, frames)
        self.update = functools.cache(self._update)  # of one step; arms are asked about repeatedly

    def mean(self, updates: int) -> Passes:
        """The mean over the first `updates` updates."""
        count = min(updates, _MOST)
        found = [self.update(place * updates // count) for place in range(count)]
        total: dict[str, dict[Pass, float]] = {role: {} for role in self.networks}
        for one in found:
            for role, passes in one.kinds.items():
                for kind, number in passes.items():
                    total[role][kind] = total[role].get(kind, 0.0) + number
        kinds = {
            role: {kind: number / count for kind, number in passes.items()}
            for role, passes in total.items()
        }
        return Passes(kinds, frozenset().union(*(one.held for one in found)))

    def _update(self, step: int) -> Passes:
        """What one update passes."""
        for passes in self.counter.passes.values():
            passes.clear()
        held: set[tuple[tuple[str, float], ...]] = set()
        taken: Counter[str] = Counter()
        for role in self.method.update_order(step):
            rng = step_rng(self.seed, role, step, taken[role], range(1), "cpu")
            taken[role] += 1
            self._train_step(role, step, rng, held)
        kinds = {role: dict(passes) for role, passes in self.counter.passes.items()}
        return Passes(kinds, frozenset(held))

    def _train_step(self, role: str, step: int, rng: KeyedRNG, held: set[Any]) -> None:
        before = self._recorded()

        def backward(loss: Tensor) -> None:
            nonlocal before
            now = self._recorded()
            held.add(tuple((name, now[name] - before[name]) for name in now))
            before = now
            loss.backward()

        method, condition = self.method, self.condition
        x0 = rng.randn(self.shape, "data") if method.needs_data else None
        batch = Batch([""], condition, condition, x0, *_trajectory(method, rng, self.shape))
        self.networks[role].anchor.requires_grad_(True)
        method.train(
            TrainStep(
                role,
                step,
                self.networks,
                batch,
                rng,
                self.backbone.blocks(),
                self.shape,
                backward,
            )
        )
        self.networks[role].anchor.requires_grad_(False)

    def _recorded(self) -> dict[str, float]:
        return {role: count["backward"] for role, count in self.counter.counts.items()}


def _without_arithmetic(network: Any) -> Any:
    """A network on the meta device, made one whose passes cost nothing and whose weights are one
    number each. Only its parameter `anchor` is trained."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            nothing = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
            setattr(module, name, nn.Parameter(nothing, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.zeros((), dtype=buffer.dtype).expand(buffer.shape))
    anchor = nn.Parameter(torch.ones(()), requires_grad=False)
    network.register_parameter("anchor", anchor)

    def forward(
        x: Tensor, t: Tensor, condition: Condition, memory: Any = None, **options: Any
    ) -> Tensor:
        return 0.5 * anchor * x

    def features(x: Tensor, t: Tensor, condition: Condition, depth: float) -> Tensor:
        v: Tensor = network(x, t, condition)
        return rearrange(v, "b c f h w -> b (f h w) c")

    network.forward = forward
    if isinstance(network, FeatureExtractor):
        network.features = features  # type: ignore[method-assign]
    return network


def _trajectory(
    method: Method, rng: KeyedRNG, shape: Sequence[int]
) -> tuple[Tensor | None, tuple[float, ...]]:
    """A trajectory at the times that the method needs, and the times."""
    times = tuple(method.stored_times) if isinstance(method, NeedsTrajectories) else ()
    return (rng.randn((len(times) + 1, *shape), "trajectory") if times else None), times
