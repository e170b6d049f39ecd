"""Whether the trajectories of a dataset are those that a training needs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.protocols import Batch
from salt_zoo_ode.trajectories import SAME_TIME


def fitting(batch: Batch, times: Sequence[float], latent_shape: Sequence[int]) -> Tensor:
    """The trajectories `[B, K, C, F, H, W]` of a batch that has some.

    Args:
        times: at which the method needs a state; K is one more, with the endpoint.
        latent_shape: C, F, H, W of one video.

    Raises:
        ZooError: they are kept at other times, or of another shape.
    """
    found, stored = batch.trajectory, batch.trajectory_times
    assert found is not None
    if len(stored) != len(times) or any(
        abs(a - b) > SAME_TIME for a, b in zip(stored, times, strict=True)
    ):
        raise ZooError(
            f"the dataset's trajectories are kept at times {_shown(stored)} and the method's "
            f"are {_shown(times)}; set method.steps and method.timestep_shift, or "
            "method.times, to theirs"
        )
    wanted = (len(times) + 1, *latent_shape)
    if tuple(found.shape[1:]) != wanted:
        raise ZooError(
            f"the dataset's trajectories are {list(found.shape[1:])} and this "
            f"backbone's would be {list(wanted)}; choose those that were made with it"
        )
    return found


def _shown(times: Sequence[float]) -> str:
    return "[" + ", ".join(f"{t:.4g}" for t in times) + "]"
