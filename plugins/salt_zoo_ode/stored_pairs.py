"""ODE pairs of CausVid and Self Forcing, whose LMDB is read once.

There a row is `[K, F, C, H, W]` from noise to the clean end, here `[K, C, F, H, W]`. Its times are
in no file. Where a step list `[1000, 750, 500, 250]` is warped, a step `s` is at the scheduler's
`t = shift * s / (1000 + (shift - 1) * s)`: `flow.step_list(4, shift)`, and K = 5 with the end at 0.
CausVid's `[1000, 757, 522, 0]` is not warped: its times are these in thousandths, and K = 4.
"""

from __future__ import annotations

from typing import Any

from salt_zoo.core import first_frame
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.protocols import Backbone
from salt_zoo.io.latent_lmdb import LatentLmdb
from salt_zoo.preparation.lmdb_rows import check_shape, images_of, states
from salt_zoo_ode.store import Shard
from salt_zoo_ode.trajectories import TrajectoryConfig


class StoredPairs:
    """The trajectories of an LMDB.

    Raises:
        ZooError: they are of other shapes than the backbone's, or have other numbers of states.
    """

    def __init__(self, lmdb: LatentLmdb, backbone: Backbone, config: TrajectoryConfig) -> None:
        self.lmdb, self.backbone = lmdb, backbone
        check_shape(lmdb, backbone)
        if len(lmdb.shape) == 4:
            raise ZooError(
                f"{lmdb.path}: holds latents of videos, not trajectories; 'salt-zoo prepare "
                "latents' reads those, with lmdb"
            )
        kept, wanted = lmdb.shape[0], len(config.kept_times) + 1
        if kept != wanted and config.times is not None:
            raise ZooError(
                f"{lmdb.path}: its trajectories have {kept} states, and times names {wanted - 1}, "
                f"with the clean end {wanted}; name {kept - 1}"
            )
        if kept != wanted:
            raise ZooError(
                f"{lmdb.path}: its trajectories have {kept} states, and steps: {config.steps} are "
                f"{wanted} with the clean end; set steps to {kept - 1}, if they are at the times "
                "of its step list, or name their times"
            )

    def header(self, device: str) -> dict[str, Any]:
        """What the rows are; all reads their prompts."""
        return {"lmdb": self.lmdb.fingerprint(), "prompts": self.lmdb.prompts()}

    def make(self, rows: range) -> Shard:
        """As they are stored, in float16."""
        images = images_of(self.lmdb, rows, self.backbone)
        found = {} if images is None else first_frame.encode(self.backbone, images)
        return Shard(states(self.lmdb, rows), found)
