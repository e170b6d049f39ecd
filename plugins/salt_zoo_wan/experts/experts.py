"""Two networks that share the times of one flow: Wan 2.2's A14B."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import AttentionUse, Condition, Memory
from salt_zoo_wan.checkpoint.files import EXPERTS
from salt_zoo_wan.experts.idle import few_tokens
from salt_zoo_wan.transformer.network import WanNetwork

#: Makes the output of one expert for some rows (None: for all), or for a few tokens that nobody
#: asks about.
Call = Callable[[WanNetwork, Tensor | Literal["few tokens"] | None], Tensor]


class WanExperts(nn.Module):
    """`v(x, t, condition)` of the expert for high noise at times from `boundary` on, and of the one
    for low noise below; each row of a batch goes to its own.

    The weights of an expert that has no row in an update have no gradient (None) in it: optimizers
    and the norm that is clipped pass them over.

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

        def output(expert: WanNetwork, rows: Tensor | Literal["few tokens"] | None) -> Tensor:
            given = x, t, condition
            if isinstance(rows, str):
                shared = 1 if expert.sequence is None else expert.sequence.size
                given = few_tokens(*given, expert.tokens_per_frame, shared)
            elif rows is not None:
                given = x[rows], t[rows], {name: v[rows] for name, v in condition.items()}
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

    def choose_attention(self, backend: str, use: AttentionUse | None) -> None:
        """Of both."""
        self.high.choose_attention(backend, use)
        self.low.choose_attention(backend, use)

    def _of_experts(self, t: Tensor, call: Call) -> Tensor:
        if t.is_meta or isinstance(t, FakeTensor):  # no times: both cost the same
            return call(self.high, None)
        rows, wanted = self._rows(t)
        parts, idle = [], []
        # in one order in all processes, in which they then gather and reduce sharded weights
        for expert, its, runs in zip((self.high, self.low), rows, wanted, strict=True):
            if len(its) == len(t):
                parts.append(call(expert, None))
            elif its:
                parts.append(call(expert, send(torch.tensor(its), t.device)))
            elif runs:
                idle.append(call(expert, "few tokens"))
        whole = parts[0]
        if len(parts) == 2:
            order = [*rows[0], *rows[1]]
            back = sorted(range(len(order)), key=order.__getitem__)
            whole = torch.cat(parts)[send(torch.tensor(back), t.device)]
        for other in idle:  # its backward pass gathers weights together with the others', too
            whole = whole + 0 * other.sum() if other.requires_grad else whole
        return whole

    def _rows(self, t: Tensor) -> tuple[tuple[list[int], list[int]], list[int]]:
        """The rows of each expert, and which experts a process that takes part has rows for.

        The host must know them: the shapes of a pass and the weights that it gathers depend on
        them. Only the device has the times of a pass, so the host waits for it here, once a pass.
        Both experts for all rows and a choice on the device would wait for nothing and compute
        twice as much.
        """
        is_high = (t if t.ndim == 1 else t.amax(dim=1)) >= self.boundary
        wanted = torch.stack([is_high.any(), ~is_high.all()]).int()
        if isinstance(self, FSDPModule):
            torch.distributed.all_reduce(
                wanted, torch.distributed.ReduceOp.MAX, self._taking_part()
            )
        *sides, high, low = torch.cat([is_high.int(), wanted]).tolist()
        rows = tuple([row for row, side in enumerate(sides) if side == its] for its in (1, 0))
        return (rows[0], rows[1]), [high, low]

    def _taking_part(self) -> Any:
        """The group of processes that use an expert's weights together.

        They are gathered within a shard group. Their gradients are summed over all processes, each
        of which must then have some (None is all of them). A frozen network may be passed by one
        shard group alone.
        """
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in self.parameters()):
            return None
        # of a weight that is not gathered at this moment
        shards = next(weight for weight in self.parameters() if isinstance(weight, DTensor))
        return shards.device_mesh.get_group("shard")


def networks_of(network: Any) -> dict[str, Any]:
    """The networks of one transformer by their parts of a diffusers pipeline."""
    if isinstance(network, WanExperts):
        return dict(zip(EXPERTS, (network.high, network.low), strict=True))
    return {EXPERTS[0]: network}
