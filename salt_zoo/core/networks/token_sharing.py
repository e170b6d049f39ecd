"""Which networks processes can share: switched on network by network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.networks.network import SequenceParallel


def share_tokens(network: Any, group: SequenceGroup, shape: Sequence[int]) -> None:
    """Let the processes of `group` make every pass of a network over videos of `shape` together.

    Raises:
        ZooError: it cannot be shared, or not by so many.
    """
    if not isinstance(network, SequenceParallel):
        raise ZooError(
            "execution.sequence: this backbone's networks cannot share a video among processes; "
            "write 1"
        )
    network.enable_sequence_parallelism(group, shape)
