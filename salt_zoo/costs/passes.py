"""How often a method evaluates each of its networks, found by running its updates without the
networks' arithmetic."""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from salt_zoo.core.base.rng import Key, KeyedRNG, step_rng
from salt_zoo.core.methods.meta import feature_shape, network_of_role, on_meta
from salt_zoo.core.methods.method import trained_together
from salt_zoo.core.methods.roles import with_averages
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.networks.condition import example
from salt_zoo.core.protocols import (
    Backbone,
    Batch,
    Condition,
    FeatureExtractor,
    Memory,
    Method,
    NeedsTrajectories,
    Start,
    TrainStep,
)
from salt_zoo.costs.counter import AnyPass, Pass, PassCounter, in_videos
from salt_zoo.costs.module_passes import ModulePass

_MOST = 400  # updates that are looked at
_SIZE = 2  # height and width of the videos


@dataclass(frozen=True)
class Held:
    """What is there at one moment of an update: before a backward pass, or when a memory is made.

    Attributes:
        recorded: role and dimensions of the times (`Pass.times`) -> passes whose activations are
            kept.
        memories: bytes of all KV memories, as a multiple of one for a video of the batch.
    """

    recorded: tuple[tuple[str, int, float], ...]
    memories: float


@dataclass(frozen=True)
class Passes:
    """Passes for each video of the batch.

    Attributes:
        kinds: role -> passes of each kind.
        held: what is there at the moments of an update.
        together: the roles of each update, whose gradients are there at once.
    """

    kinds: Mapping[str, Mapping[AnyPass, float]]
    held: frozenset[Held]
    together: frozenset[tuple[str, ...]]

    def held_bytes(self, role: str) -> float:
        """Of a module that is no velocity network: what a recorded pass keeps, of one video."""
        passes = (kind for kind in self.kinds[role] if isinstance(kind, ModulePass))
        return max((kind.held for kind in passes if kind.recorded), default=0.0)

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

    Where a role has a factory, whose module needs true shapes, the video is whole and on the meta
    device, and that module runs as it is.
    """

    def __init__(self, method: Method, backbone: Backbone, seed: int) -> None:
        self.method, self.backbone, self.seed = method, backbone, seed
        channels, frames = backbone.latent_shape[:2]
        roles = with_averages(method.roles())
        self.copies = {name for name, role in roles.items() if role.copy_of}
        self.modules = {name for name, role in roles.items() if role.factory is not None}
        self.device = "meta" if self.modules else "cpu"
        small = (channels, frames, _SIZE, _SIZE)
        self.shape = backbone.latent_shape if self.modules else small
        self.networks: dict[str, Any] = {}
        for name, role in roles.items():
            network = network_of_role(backbone, role)
            if role.start is not None:
                network = self._without_arithmetic(network, role.start)
            self.networks[name] = network
        with on_meta(backbone):
            self.condition = example(backbone)
        if not self.modules:
            self.condition = {
                name: torch.zeros([1] * value.ndim) for name, value in self.condition.items()
            }
        self.counter = PassCounter(self.networks, frames, self.modules)
        video = torch.zeros(1, *self.shape, device=self.device)
        self.memories = _Memories(backbone.blocks(), self.networks["student"], video)
        self.update = functools.cache(self._update)  # of one step; arms are asked about repeatedly

    def mean(self, updates: int) -> Passes:
        """The mean over the first `updates` updates."""
        count = min(updates, _MOST)
        found = [self.update(place * updates // count) for place in range(count)]
        total: dict[str, dict[AnyPass, float]] = {role: {} for role in self.networks}
        for one in found:
            for role, passes in one.kinds.items():
                for kind, number in passes.items():
                    total[role][kind] = total[role].get(kind, 0.0) + number
        kinds = {
            role: {kind: number / count for kind, number in passes.items()}
            for role, passes in total.items()
        }
        held = frozenset().union(*(one.held for one in found))
        return Passes(kinds, held, frozenset().union(*(one.together for one in found)))

    def _update(self, step: int) -> Passes:
        """What one update passes."""
        for passes in self.counter.passes.values():
            passes.clear()
        held: set[Held] = set()
        taken: Counter[str] = Counter()
        order = [trained_together(one) for one in self.method.update_order(step)]
        together = [roles for roles in order if roles[0] not in self.copies]
        for roles in together:
            rng = step_rng(self.seed, roles[0], step, taken[roles[0]], range(1), "cpu")
            if self.modules:
                rng = _Shapes(rng.seed, rng.scope, rng.rows, "meta")
            taken[roles[0]] += 1
            self._train_step(roles, step, rng, held)
        kinds = {role: dict(passes) for role, passes in self.counter.passes.items()}
        return Passes(kinds, frozenset(held), frozenset(together))

    def _train_step(self, roles: tuple[str, ...], step: int, rng: KeyedRNG, held: set[Any]) -> None:
        before = self._recorded()

        def moment() -> Held:
            now = self._recorded()
            kept = {key: number - before.get(key, 0.0) for key, number in now.items()}
            recorded = tuple((*key, number) for key, number in sorted(kept.items()) if number)
            return Held(recorded, self.memories.there())

        def backward(loss: Tensor) -> None:
            nonlocal before
            held.add(moment())
            before = self._recorded()
            loss.backward()

        method, condition = self.method, self.condition
        x0 = rng.randn(self.shape, "data") if method.needs_data else None
        batch = Batch([""], condition, condition, x0, *_trajectory(method, rng, self.shape))
        for role in roles:
            self._trained(role).requires_grad_(True)
        method.train(
            TrainStep(
                roles[0],
                step,
                self.networks,
                batch,
                rng,
                self.memories.watched(lambda: held.add(moment())),
                self.shape,
                backward,
            )
        )
        for role in roles:
            self._trained(role).requires_grad_(False)

    def _trained(self, role: str) -> Any:
        """What takes gradients: all of a module, one number of a velocity network."""
        network = self.networks[role]
        return network if role in self.modules else network.anchor

    def _recorded(self) -> dict[tuple[str, int], float]:
        """Passes with a backward pass, in whole videos and networks, by role and times."""
        found: dict[tuple[str, int], float] = {}
        for role, passes in self.counter.passes.items():
            for kind, number in passes.items():
                if kind.recorded:
                    key = role, kind.times if isinstance(kind, Pass) else 1
                    found[key] = found.get(key, 0.0) + number * kind.depth
        return found

    def _without_arithmetic(self, network: Any, start: Start) -> Any:
        """A network on the meta device, made one whose passes cost nothing and whose weights are
        one number each. Only its parameter `anchor` is trained."""
        zero = functools.partial(torch.zeros, (), device=self.device)
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                nothing = zero(dtype=parameter.dtype).expand(parameter.shape)
                setattr(module, name, nn.Parameter(nothing, requires_grad=False))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, zero(dtype=buffer.dtype).expand(buffer.shape))
        anchor = nn.Parameter(torch.ones((), device=self.device), requires_grad=False)
        network.register_parameter("anchor", anchor)

        def forward(
            x: Tensor, t: Tensor, condition: Condition, memory: Any = None, **options: Any
        ) -> Tensor:
            return 0.5 * anchor * x

        def features(x: Tensor, t: Tensor, condition: Condition, depth: float) -> Tensor:
            v: Tensor = network(x, t, condition)
            tokens = rearrange(v, "b c f h w -> b (f h w) c")
            if self.modules:  # their shape matters to who reads them
                count, width = feature_shape(self.backbone, start, depth)
                count = count * x.shape[2] // self.shape[1]
                tokens = tokens.mean(dim=(1, 2), keepdim=True).expand(len(x), count, width)
            return tokens

        network.forward = forward
        if isinstance(network, FeatureExtractor):
            network.features = features  # type: ignore[method-assign]
        return network


class _Memories:
    """The KV memories of an update that somebody still holds."""

    def __init__(self, blocks: Blocks, network: Any, video: Tensor) -> None:
        self._blocks = blocks
        one = blocks.memory(network, video)
        self._one = 0 if one is None else one.bytes()
        self._made: list[tuple[Callable[[], Memory | None], float]] = []

    def watched(self, made: Callable[[], None]) -> Blocks:
        """The blocks, with a memory of which it is known when it goes; `made` is called after each
        new one."""
        new = self._blocks.new_memory
        if new is None:
            return self._blocks

        def new_memory(network: Any, x: Tensor) -> Memory:
            memory = new(network, x)
            # so small a video may have less than a token a frame, and its memory no bytes
            share = memory.bytes() / self._one if self._one else len(x)
            self._made.append((_reference(memory), share))
            made()
            return memory

        return replace(self._blocks, new_memory=new_memory)

    def there(self) -> float:
        """Bytes of those that are there, as a multiple of one memory for one video."""
        self._made = [(memory, share) for memory, share in self._made if memory() is not None]
        return sum(share for _, share in self._made)


def _reference(memory: Memory) -> Callable[[], Memory | None]:
    """A weak one, where its class allows that."""
    try:
        return weakref.ref(memory)
    except TypeError:
        return lambda: memory


class _Shapes(KeyedRNG):
    """Draws whose tensors have no data; shared ones and integers are those of the run."""

    def randn(self, shape: Sequence[int], *key: Key, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(len(self.rows), *shape, dtype=dtype, device="meta")


def _trajectory(
    method: Method, rng: KeyedRNG, shape: Sequence[int]
) -> tuple[Tensor | None, tuple[float, ...]]:
    """A trajectory at the times that the method needs, and the times."""
    times = tuple(method.stored_times) if isinstance(method, NeedsTrajectories) else ()
    return (rng.randn((len(times) + 1, *shape), "trajectory") if times else None), times
