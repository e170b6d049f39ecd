"""Metrics: scores of generated videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

#: Which scores are better: `higher` ones, `lower` ones, those nearest to a target, or none.
Direction = Literal["higher", "lower", "target", "none"]
#: What a metric is for. `quality`: it judges videos, so it may choose a best arm. `diagnostic`: it
#: explains a method and can be good where videos are bad (a collapsed student has no semigroup
#: defect); hypotheses may name it, but it has no vote. `description`: it says what videos are like.
MetricKind = Literal["quality", "diagnostic", "description"]


@runtime_checkable
class Metric(Protocol):
    """Scores of generated videos, one row a video, so that they can be paired and resampled.

    Made as `Factory(config, zoo)`. It may also declare

    - `target`: the right value, with `direction = "target"`; arms are compared by their distances.
    - `kind`: see `MetricKind`; by default `quality`, or `description` where `direction` is `none`.
    - `mean = True`: `reduce` is the mean of `[N]` scores. Resampling is then one matrix product
      and long videos have slopes; by default `reduce` is asked for every resample.
    - `bounds`: the least and the largest score, `(0, 1)` for a share. Without spread among the
      scores, an interval exists only for a metric with bounds.
    - all-NaN rows, from a metric with `own_steps`, say that it does not apply to the network.
    - `version`: an integer to raise whenever its numbers change; old scores are then measured anew.
    - `whole_video = True`: it cannot score clips out of the middle of longer videos.
    - `prepare()`: fetches its weights.
    - `reduce_many`: `reduce` of `[R, N, D]` rows to `[R]` numbers, where `reduce` is slow.
    """

    direction: Direction
    #: Set for a metric that makes rollouts of its own with so many steps: it is measured once a
    #: network, not once for each NFE of the study. None for metrics of the videos. `own_sampler`,
    #: where it has it, is how those rollouts go (default: `sde`).
    own_steps: int | None

    def measure(self, videos: Any) -> Tensor:
        """`[N]` scores or `[N, D]` features of a `salt_zoo.evaluation.videos.Videos`."""
        ...

    def reduce(self, rows: Tensor) -> float:
        """One number for any set of those rows; the mean for most metrics."""
        ...
