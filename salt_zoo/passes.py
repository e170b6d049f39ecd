"""How often a method evaluates each of its networks, found by running it on stand-ins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.draws import Draws, turn_draws
from salt_zoo.protocols import Batch, Condition, Method, Turn
from salt_zoo.rollout import Blocks
from salt_zoo.training.costs import PassCounter

_MOST = 400  # updates that are run


def passes_per_update(
    method: Method, blocks: Blocks, latent_shape: Sequence[int], updates: int = 400, seed: int = 0
) -> tuple[dict[str, dict[str, float]], float]:
    """A method's network passes for each video of the batch, by running it on stand-ins.

    Draws are keyed by seed and step, so that rollouts end where they will end in the run itself.
    Of more than 400 updates so many are looked at, evenly spread: some terms start late.

    Returns:
        role -> `forward`, `backward`, means over `updates`; and how many recorded passes are held
        at once at most (for the activations).
    """
    channels, frames = latent_shape[:2]
    shape = (channels, frames, 2, 2)
    roles = dict(method.roles())
    networks = {role: _StandIn().requires_grad_(False) for role in roles}
    counter = PassCounter(dict(networks), frames)
    if blocks.new_memory is not None:  # the real one would look into the network
        blocks = replace(blocks, new_memory=lambda network, x: _NoMemory())
    condition = {"text": torch.zeros(1, 1, 1)}
    held = most = 0.0

    def recorded() -> float:
        return sum(count["backward"] for count in counter.counts.values())

    def backward(loss: Tensor) -> None:
        nonlocal held, most
        most, held = max(most, recorded() - held), recorded()
        loss.backward()

    count = min(updates, _MOST)
    for step in (place * updates // count for place in range(count)):
        taken: Counter[str] = Counter()
        for role in method.turns(step):
            draws = turn_draws(seed, role, step, taken[role], range(1), "cpu")
            taken[role] += 1
            x0 = draws.normal(shape, "data") if method.needs_data else None
            networks[role].requires_grad_(True)
            batch = Batch([""], condition, condition, x0, *_trajectory(method, draws, shape))
            method.train(Turn(role, step, networks, batch, draws, blocks, shape, backward))
            networks[role].requires_grad_(False)
    counts = {
        role: {kind: n / count for kind, n in counted.items()}
        for role, counted in counter.counts.items()
    }
    return counts, most or 1.0


def _trajectory(
    method: Any, draws: Draws, shape: Sequence[int]
) -> tuple[Tensor | None, tuple[float, ...]]:
    """A trajectory for a method that cannot do without: it says so by its `wanted_times`."""
    times = tuple(getattr(method, "wanted_times", ()))
    return (draws.normal((len(times) + 1, *shape), "trajectory") if times else None), times


class _StandIn(nn.Module):
    """A velocity network of one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, condition: Condition, memory: Any = None) -> Tensor:
        return 0.5 * self.weight * x

    def remember(self, x: Tensor, t: Tensor, condition: Condition, memory: Any) -> None:
        self(x, t, condition, memory)

    def features(self, x: Tensor, t: Tensor, condition: Condition, depth: float) -> Tensor:
        return self(x, t, condition).flatten(2).transpose(1, 2)


class _NoMemory:
    def bytes(self) -> int:
        return 0

    def switch(self, recent: Sequence[Tensor], remember: Callable[[Tensor], None]) -> None:
        pass
