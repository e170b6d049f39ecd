"""Metrics: scores of generated videos."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

#: Which scores are better: `higher` ones, `lower` ones, those nearest to a target, or none.
Direction = Literal["higher", "lower", "target", "none"]
#: What a metric is for. `quality`: it judges videos, so it may select the best arm. `diagnostic`:
#: it explains a method and can be good where videos are bad (a collapsed student has no semigroup
#: defect); hypotheses may name it, but it selects no arm. `description`: what videos are like.
MetricKind = Literal["quality", "diagnostic", "description"]


@runtime_checkable
class Metric(Protocol):
    """Scores of generated videos, one row a video, so that they can be paired and resampled.

    Made as `Factory(config, zoo)`. Whoever makes one inherits `MetricDefaults`, or writes its
    members, each of which may be left out. It may also declare

    - `target`: the right value, with `direction = "target"`; arms are compared by their distances.
    - `kind`: see `MetricKind`; by default `quality`, or `description` where `direction` is `none`
      (with which `quality` is an error).
    - all-NaN rows, from a metric with `own_steps`, say that it does not apply to the network.
    - `version`: an integer to raise whenever its numbers change; old scores are then measured anew,
      as they are when a data file of its package or a file that its options name has changed.
    """

    direction: Direction

    def measure(self, videos: Any) -> Tensor:
        """`[N]` scores or `[N, D]` features of a `salt_zoo.evaluation.videos.Videos`."""
        ...

    def reduce(self, rows: Tensor) -> float:
        """One number for any set of those rows; the mean for most metrics."""
        ...


class MetricDefaults:
    """The members of a metric that most metrics do not need: inherit it."""

    #: Set for a metric that makes rollouts of its own with so many steps: it is measured once a
    #: network, not once for each NFE of the study. None for metrics of the videos.
    own_steps: int | None = None
    #: The sampler of those rollouts.
    own_sampler: str = "sde"
    #: It cannot score clips out of the middle of longer videos.
    whole_video: bool = False
    #: `reduce` is the mean of `[N]` scores: resampling is then one matrix product and long videos
    #: have slopes. Otherwise `reduce` is called for every resample.
    mean: bool = False
    #: The least and the largest score, `(0, 1)` for a share, None for an open end, `(0, None)` for
    #: a distance. Intervals end there. Without spread among the scores, an interval exists only
    #: between two bounds.
    bounds: tuple[float | None, float | None] | None = None
    #: `reduce` of `[R, N, D]` rows to `[R]` numbers, where `reduce` is slow.
    reduce_many: Callable[[Tensor], Tensor] | None = None

    def prepare(self) -> None:
        """Fetch its weights."""
