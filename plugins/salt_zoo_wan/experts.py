"""Two networks that share the times of one flow: Wan 2.2's A14B."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.fsdp import FSDPModule

from salt_zoo.core.protocols import Condition, Memory
from salt_zoo.core.sequence import SequenceGroup
from salt_zoo_wan.network import WanNetwork

#: Makes the output of one expert for some rows.
Call = Callable[[WanNetwork, Tensor | slice], Tensor]


class WanExperts(nn.Module):
    """`v(x, t, condition)` of the expert for high noise at times from `boundary` on, and of the one
    for low noise below; each row of a batch goes to its own.

    Args:
        high, low: the experts.
        boundary: in (0, 1), as `boundary_ratio` of a diffusers pipeline.
    """

    def __init__(self, high: WanNetwork, low: WanNetwork, boundary: float) -> None:
        super().__init__()
        self.high, self.low, self.boundary = high, low, boundary
        self._depth: float | None = None  # at which the pass that is under way ends

    @property
    def tokens_per_frame(self) -> tuple[int, int]:
        """See `WanNetwork`."""
        return self.high.tokens_per_frame

    def forward(
        self, x: Tensor, t: Tensor, condition: Condition, memory: Memory | None = None
    ) -> Tensor:
        """The velocity `[B, C, F, H, W]` at `x` and times `t` (`[B]` or `[B, F]`, in [0, 1])."""

        depth = self._depth

        def output(expert: WanNetwork, rows: Tensor | slice) -> Tensor:
            given = x[rows], t[rows], _some(condition, rows)
            found: Tensor = (
                expert(*given, memory) if depth is None else expert.features(*given, depth)
            )
            return found

        return self._of_experts(t, output)

    def features(self, x: Tensor, t: Tensor, condition: Condition, depth: float) -> Tensor:
        """Hidden states of each row's own expert, see `WanNetwork`."""
        self._depth = depth
        try:  # a pass like any other: precision, sharding and counts go by the whole network's
            found: Tensor = self(x, t, condition)
        finally:
            self._depth = None
        return found

    def shard_units(self) -> Iterator[nn.Module]:
        """Those of both."""
        yield from self.high.shard_units()
        yield from self.low.shard_units()

    def enable_gradient_checkpointing(self) -> None:
        """Of both."""
        self.high.enable_gradient_checkpointing()
        self.low.enable_gradient_checkpointing()

    def enable_sequence_parallelism(self, group: SequenceGroup, shape: Sequence[int]) -> None:
        """Of both; the processes of a group have the same times, and so the same expert."""
        self.high.enable_sequence_parallelism(group, shape)
        self.low.enable_sequence_parallelism(group, shape)

    def _of_experts(self, t: Tensor, call: Call) -> Tensor:
        if t.is_meta or isinstance(t, FakeTensor):  # no times: both cost the same
            return call(self.high, slice(None))
        is_high = (t if t.ndim == 1 else t.amax(dim=1)) >= self.boundary
        rows = {expert: side.nonzero()[:, 0] for expert, side in
                ((self.high, is_high), (self.low, ~is_high))}  # fmt: skip
        wanted = self._wanted_by_any([len(its) > 0 for its in rows.values()], t.device)
        parts, order, idle = [], [], []
        for (expert, its), runs in zip(rows.items(), wanted, strict=True):
            if len(its) == len(t):
                parts.append(call(expert, slice(None)))
                order.append(its)
            elif len(its):
                parts.append(call(expert, its))
                order.append(its)
            elif runs:
                idle.append(call(expert, slice(0, 1)))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)[torch.cat(order).argsort()]
        for other in idle:  # its backward pass gathers weights together with the others', too
            whole = whole + 0 * other.sum() if other.requires_grad else whole
        return whole

    def _wanted_by_any(self, mine: list[bool], device: torch.device) -> list[bool]:
        """Which experts any process has rows for, where they gather sharded weights together."""
        if not isinstance(self, FSDPModule):
            return mine
        sides = torch.tensor(mine, dtype=torch.int32, device=device)
        torch.distributed.all_reduce(sides, torch.distributed.ReduceOp.MAX)
        return [bool(side) for side in sides.tolist()]


def _some(condition: Condition, rows: Tensor | slice) -> Condition:
    return {name: value[rows] for name, value in condition.items()}
