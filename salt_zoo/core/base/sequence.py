"""Sequence parallelism: processes share the tokens of a video (Ulysses, arXiv 2309.14509).

Each holds a part of the tokens; for attention they exchange so that each holds all tokens of a part
of the heads. Own functions on torch's public collectives, because they differentiate in any order
and mode; those of torch (`*_autograd`) end at the first backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.autograd import Function

from salt_zoo.core.base.errors import ZooError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class SequenceGroup:
    """The processes that share a video, and this one's place among them.

    What enters and leaves a network is whole and the same in all of them, and so is its gradient.
    Gradients of weights are such that their mean over the group is the true one: an average over
    all processes of a run, as data parallelism takes it, is right without knowing of the group.

    Args:
        size, rank: processes, and this one.
        group: of torch; None where nothing is computed, for plans: shapes are right, numbers are
            not.
    """

    def __init__(self, size: int, rank: int = 0, group: ProcessGroup | None = None) -> None:
        self.size, self.rank, self.group = size, rank, group

    def __deepcopy__(self, memo: dict[int, Any]) -> SequenceGroup:
        return self  # copies of a network have the same processes

    def given_whole(self, x: Tensor) -> Tensor:
        """`x`, the whole input of what follows on parts: it gets the gradients of all parts."""
        return _apply(_Given, x, self)

    def own_tokens(self, x: Tensor, dim: int) -> Tensor:
        """This process's part of the tokens in dimension `dim`.

        Raises:
            ZooError: the group's size does not divide them.
        """
        count, rest = divmod(x.shape[dim], self.size)
        if rest:
            raise ZooError(
                f"execution.sequence: a pass of {x.shape[dim]} tokens cannot be shared by "
                f"{self.size} processes; write a divisor, or 1"
            )
        return x.narrow(dim, self.rank * count, count)

    def all_tokens(self, x: Tensor) -> Tensor:
        """The tokens of all processes: `[B, N / size, D]` to `[B, N, D]`."""
        return _apply(_Gather, x, self)

    def to_heads(self, x: Tensor) -> Tensor:
        """Own tokens of all heads `[B, N / size, D]` to all tokens of own heads `[B, N, D / size]`.

        D is heads times their width, the heads one after the other.
        """
        return _apply(_Exchange, x, self, True)

    def to_tokens(self, x: Tensor) -> Tensor:
        """What `to_heads` did, undone: `[B, N, D / size]` to `[B, N / size, D]`."""
        return _apply(_Exchange, x, self, False)

    @torch.no_grad()
    def total(self, x: Tensor) -> Tensor:
        """The sum over the group."""
        total = x.clone(memory_format=torch.contiguous_format)
        if self.group is not None:
            distributed.all_reduce(total, group=self.group)
        return total

    def _all_to_all(self, parts: Tensor) -> Tensor:
        """`parts[i]` goes to process i; returned are those that came, by their sender."""
        parts = parts.contiguous()
        found = torch.empty_like(parts)
        if self.group is not None:
            distributed.all_to_all_single(found, parts, group=self.group)
        return found

    def _all_gather(self, x: Tensor) -> Tensor:
        """`[size, *x.shape]`"""
        found = x.new_empty(self.size, *x.shape)
        if self.group is not None:  # into parts: what gathers into one has another name every year
            distributed.all_gather(list(found.unbind()), x.contiguous(), group=self.group)
        return found


def _apply(function: Any, x: Tensor, *rest: Any) -> Tensor:
    found: Tensor = function.apply(x, *rest)
    return found


class _Exchange(Function):
    """Tokens for heads, or back: each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SequenceGroup, to_heads: bool) -> Tensor:
        ctx.group, ctx.to_heads = group, to_heads
        batch, tokens, width = x.shape
        n = group.size
        if to_heads:
            parts = x.view(batch, tokens, n, width // n).permute(2, 0, 1, 3)
            came = group._all_to_all(parts)  # the sender's tokens
            return came.transpose(0, 1).reshape(batch, n * tokens, width // n)
        parts = x.view(batch, n, tokens // n, width).transpose(0, 1)
        came = group._all_to_all(parts)  # the sender's heads
        return came.permute(1, 2, 0, 3).reshape(batch, tokens // n, n * width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _apply(_Exchange, gradients[0].contiguous(), ctx.group, not ctx.to_heads), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _apply(_Exchange, tangents[0].contiguous(), ctx.group, ctx.to_heads)


class _Gather(Function):
    """All tokens. Their gradient is whole in every process: its own part of it, times the number
    of processes, because gradients of weights are going to be averaged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SequenceGroup) -> Tensor:
        ctx.group = group
        return group._all_gather(x).transpose(0, 1).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _apply(_Split, gradients[0], ctx.group) * ctx.group.size, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _apply(_Gather, tangents[0], ctx.group)


class _Split(Function):
    """The own part of all tokens, whose gradients are put together."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SequenceGroup) -> Tensor:
        ctx.group = group
        return group.own_tokens(x, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _apply(_Gather, gradients[0], ctx.group) / ctx.group.size, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _apply(_Split, tangents[0], ctx.group)


class _Given(Function):
    """Nothing; the gradient is the mean over the processes, each of which has that of its own
    tokens times their number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SequenceGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _apply(_Mean, gradients[0], ctx.group), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0].view_as(tangents[0])


class _Mean(Function):
    """The mean over the processes; the gradient of it is whole already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SequenceGroup) -> Tensor:
        ctx.group = group
        return group.total(x) / group.size

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _apply(_Given, gradients[0], ctx.group), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _apply(_Mean, tangents[0], ctx.group)
