"""The metrics of the digits, as the harness wants them. The measures themselves: `measures.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torch import Tensor

from salt_zoo.core.protocols import Direction, MetricDefaults, MetricKind
from salt_zoo.evaluation.videos import Videos
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import NoOptions
from salt_zoo_digits import measures
from salt_zoo_digits.frechet import Gaussian, frechet_distance, frechet_distances
from salt_zoo_digits.judge import judge_video, shipped_judge
from salt_zoo_digits.reference import Features, shipped_reference

#: Scores of pixels and prompts, for clips that begin at the given frame of their videos.
Measure = Callable[[Tensor, Sequence[str], int], Tensor]


@functools.lru_cache(maxsize=1)  # tensors hash by identity: three metrics share one judgement
def judged(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The shipped judge's features and probabilities, `[N, F, 32]` and `[N, F, 10]`."""
    return judge_video(shipped_judge(), pixels)


class Score(MetricDefaults):
    """A measure of each video, averaged over videos."""

    version = 2  # NaN for videos that are not finite; the shipped reference
    direction: Direction
    kind: MetricKind = "quality"
    bounds: tuple[float | None, float | None] | None = (0.0, None)
    mean = True
    of: Measure

    def __init__(self, config: NoOptions, zoo: Zoo) -> None:
        pass

    def measure(self, videos: Videos) -> Tensor:
        scores = type(self).of(videos.pixels, videos.prompts, videos.first_frame)
        return where_finite(videos.pixels, scores)

    def reduce(self, rows: Tensor) -> float:
        return float(rows.mean())


class Share(Score):
    """A score of 0 or 1, so that the mean is the share of videos."""

    direction = "higher"
    bounds = (0.0, 1.0)


class Motion(Share):
    """The path that fits the centroids best belongs to the commanded motion."""

    of = staticmethod(measures.motion_correct)


class Rigidity(Score):
    """Share of the pixels' energy that no rigid digit on the commanded path explains."""

    direction = "lower"
    bounds = (0.0, 1.0)
    of = staticmethod(measures.rigidity_error)


class CentroidError(Score):
    """Distance in pixels of the centroids to the commanded path that fits best."""

    direction = "lower"
    of = staticmethod(measures.centroid_error)


class Displacement(Score):
    """Length of the centroids' track over the commanded one: below 1 is too slow."""

    direction = "target"
    target = 1.0
    of = staticmethod(measures.displacement_ratio)


class Flicker(Score):
    """A diagnostic: a still or blank video has none."""

    direction = "lower"
    kind = "diagnostic"

    @staticmethod
    def of(pixels: Tensor, prompts: Sequence[str], first: int) -> Tensor:
        return measures.flicker(pixels)


class ClassAccuracy(Share):
    """The judge's mean over frames is highest for the commanded digit."""

    @staticmethod
    def of(pixels: Tensor, prompts: Sequence[str], first: int) -> Tensor:
        found = judged(pixels)[1].mean(dim=1).argmax(dim=-1)
        return (found == measures.commanded(prompts)[0]).float()


class Consistency(Share):
    """The judge sees the digit of the first frame in every frame, whichever it is."""

    @staticmethod
    def of(pixels: Tensor, prompts: Sequence[str], first: int) -> Tensor:
        found = judged(pixels)[1].argmax(dim=-1)
        return (found == found[:, :1]).all(dim=1).float()


class Sharpness(Score):
    """Laplacian energy over that of real videos: blur is below 1, overshoot above. A description:
    what judges by it is its error."""

    direction: Direction = "target"
    target = 1.0
    kind: MetricKind = "description"

    def __init__(self, config: NoOptions, zoo: Zoo) -> None:
        self.real = shipped_reference().laplacian_energy

    def measure(self, videos: Videos) -> Tensor:
        return measures.laplacian_energy(videos.pixels) / self.real


class SharpnessError(Sharpness):
    """How far the mean sharpness is from that of real videos: overshoot is as wrong as blur."""

    direction = "lower"
    kind = "quality"
    mean = False

    def reduce(self, rows: Tensor) -> float:
        return abs(1 - float(rows.mean()))


class Diversity(Score):
    """Distance between videos of one prompt, over that of real videos; NaN where there is one."""

    direction = "target"
    target = 1.0

    def __init__(self, config: NoOptions, zoo: Zoo) -> None:
        self.real = shipped_reference().distance_within_prompt

    def measure(self, videos: Videos) -> Tensor:
        return measures.distance_within_prompt(videos.pixels, videos.prompts) / self.real


class FrechetAppearance(MetricDefaults):
    """Frechet distance of the judge's features, averaged over frames, to real training videos.

    Every feature is divided by its standard deviation over those videos.
    """

    version = 2
    direction: Direction = "lower"
    bounds = (0.0, None)

    def __init__(self, config: NoOptions, zoo: Zoo) -> None:
        pass

    @property
    def real(self) -> Features:
        return shipped_reference().appearance

    def features(self, pixels: Tensor) -> Tensor:
        return judged(pixels)[0].mean(dim=1)

    def measure(self, videos: Videos) -> Tensor:
        return where_finite(videos.pixels, self.features(videos.pixels) / self.real.scale)

    def reduce(self, rows: Tensor) -> float:
        return frechet_distance(self.real.gaussian, Gaussian.of(rows))

    def reduce_many(self, rows: Tensor) -> Tensor:
        """`reduce` of every `[N, D]` in `[R, N, D]`."""
        return frechet_distances(self.real.gaussian, rows)


class FrechetMotion(FrechetAppearance):
    """Frechet distance of the centroids' steps between frames to real training videos.

    Of whole videos only: a clip that begins between two slow moves steps at other frames.
    """

    whole_video = True

    @property
    def real(self) -> Features:
        return shipped_reference().motion

    def features(self, pixels: Tensor) -> Tensor:
        return measures.centroid_velocities(pixels)


def where_finite(pixels: Tensor, scores: Tensor) -> Tensor:
    """Scores `[N]` or features `[N, D]`, NaN for a video that is not finite: a judge would see some
    digit in it, too."""
    broken = ~pixels.flatten(1).isfinite().all(dim=1)
    return scores.float().masked_fill(broken.view(-1, *[1] * (scores.ndim - 1)), float("nan"))
