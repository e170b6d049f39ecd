"""Which process of a run holds what: its rows of the batch, and its shard of the networks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from salt_zoo.core.base.errors import ZooError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from salt_zoo.config.execution import ExecutionConfig
    from salt_zoo.core.base.sequence import SequenceGroup


@dataclass(frozen=True)
class Layout:
    """The processes of a run, and this one's place among them.

    Attributes:
        world, rank: number of processes, and this process.
        shard: processes that share one copy of the networks; 1 is a whole copy in each.
        sequence: processes that share the tokens of one video, neighbours by rank; 1 is a whole
            video in each.
        micro_batch: videos of one pass.
        accumulation: passes of one update.
    """

    world: int
    rank: int
    shard: int
    micro_batch: int
    accumulation: int
    sequence: int = 1

    @property
    def sharded(self) -> bool:
        return self.shard > 1

    @property
    def together(self) -> bool:
        """Whether a pass of a network takes several processes: all of them have to make it."""
        return self.sharded or self.sequence > 1

    @property
    def data_processes(self) -> int:
        """Shares into which a batch is split."""
        return self.world // self.sequence

    @property
    def share(self) -> int:
        """Which of these shares this process passes."""
        return self.rank // self.sequence

    def rows(self, part: int) -> range:
        """The rows of the global batch that this process passes in the accumulation step `part`;
        those that share a video pass the same ones."""
        first = (part * self.data_processes + self.share) * self.micro_batch
        return range(first, first + self.micro_batch)

    def mesh(self, device_type: str) -> DeviceMesh:
        """`[replicate, shard]`: each row of processes holds one copy of the networks.

        `[shard]` where there is one: FSDP would make a mesh of the row for every weight, and sum
        each gradient once more.
        """
        from torch.distributed.device_mesh import init_device_mesh

        _have_group(device_type)
        copies = self.world // self.shard
        shape, names = (copies, self.shard), ("replicate", "shard")
        if copies == 1:
            shape, names = shape[1:], names[1:]  # type: ignore[assignment]
        return init_device_mesh(device_type, shape, mesh_dim_names=names)

    def sequence_group(self, device_type: str) -> SequenceGroup | None:
        """The processes that share a video with this one; None where it has its own. All processes
        must call it."""
        if self.sequence == 1:
            return None
        from torch.distributed.device_mesh import init_device_mesh

        from salt_zoo.core.base.sequence import SequenceGroup  # imports torch

        shape = (self.data_processes, self.sequence)
        mesh = init_device_mesh(device_type, shape, mesh_dim_names=("data", "sequence"))
        return SequenceGroup(self.sequence, self.rank % self.sequence, mesh["sequence"].get_group())


def _have_group(device_type: str) -> None:
    """A group of this process alone, where torchrun has made none."""
    import torch.distributed as distributed

    if not distributed.is_initialized():
        distributed.init_process_group(
            "nccl" if device_type == "cuda" else "gloo",
            store=distributed.HashStore(),
            rank=0,
            world_size=1,
        )


#: A process alone that passes a video at a time.
ALONE = Layout(world=1, rank=0, shard=1, micro_batch=1, accumulation=1)


def make_layout(
    execution: ExecutionConfig,
    batch_size: int,
    world: int = 1,
    rank: int = 0,
    device_type: Literal["cpu", "cuda"] | str = "cpu",
    node: int | None = None,
) -> Layout:
    """The layout of a run whose global batch has `batch_size` videos.

    Args:
        node: processes of this node; by default what torchrun says.

    Raises:
        ZooError: the batch or the processes cannot be split so.
    """
    sequence = execution.sequence
    if world % sequence:
        raise ZooError(
            f"execution.sequence: {world} process{'es' if world > 1 else ''} cannot be split into "
            f"groups of {sequence}; start a multiple of {sequence} (torchrun --nproc_per_node), or "
            f"write a divisor of {world}"
        )
    shares = world // sequence
    over = f"{shares} process{'es' if shares > 1 else ''}"
    if sequence > 1:
        over = f"{shares} group{'s' if shares > 1 else ''} of {sequence} processes"
    micro = execution.micro_batch
    if micro is None:
        if batch_size % shares:
            raise ZooError(
                f"training.batch_size: {batch_size} cannot be split over {over}; "
                f"write a multiple of them{_or_share(batch_size, world, shares)}"
            )
        micro = batch_size // shares
    elif batch_size % (micro * shares):
        raise ZooError(
            f"execution.micro_batch: training.batch_size {batch_size} cannot be split over "
            f"{over} in passes of {micro}; write a divisor of {batch_size // shares}"
            if batch_size % shares == 0
            else f"training.batch_size: {batch_size} cannot be split over {over} in "
            f"passes of {micro}; write a multiple of {micro * shares}"
            f"{_or_share(batch_size, world, shares)}"
        )
    return Layout(world, rank, _shard(execution, world, device_type, node), micro,
                  batch_size // (micro * shares), sequence)  # fmt: skip


def _or_share(batch_size: int, world: int, shares: int) -> str:
    """What else would do where there are more processes than videos."""
    if batch_size >= shares:
        return ""
    sizes = (n for n in range(1, world + 1) if world % n == 0)
    return f", or execution.sequence={next(n for n in sizes if batch_size % (world // n) == 0)}"


def _shard(execution: ExecutionConfig, world: int, device_type: str, node: int | None) -> int:
    if execution.shard == "auto":
        if device_type != "cuda":
            return 1
        local = node or int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return local if world % local == 0 else 1
    if world % execution.shard:
        raise ZooError(
            f"execution.shard: {world} process{'es' if world > 1 else ''} cannot be split into "
            f"groups of {execution.shard}; write a divisor of {world}, or auto"
        )
    return execution.shard
