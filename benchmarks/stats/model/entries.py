"""Parts of results.json: how metrics are read, what was measured, means and differences."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.evaluate.records import EvalResult
from benchmarks.study.metric_info import MetricInfo
from salt_zoo.core.protocols import Direction, MetricKind
from salt_zoo.plugin.isolation.metric_reading import direction_words


class Entry(BaseModel):
    """Base of all parts: unknown keys are errors, values are not converted and cannot change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


class OpenEntry(Entry):
    """A part that may hold more than is named here."""

    model_config = ConfigDict(extra="allow")

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class MetricEntry(Entry):
    """How a metric is read; see `salt_zoo.core.protocols.Metric`."""

    name: str
    direction: Direction
    target: float | None
    kind: MetricKind
    mean: bool
    """Its number is the mean of a video's scores; otherwise a statistic of features."""
    bounds: Annotated[list[float | None], Field(min_length=2, max_length=2)] | None
    version: int | None
    own_steps: int | None
    """The number of steps of a metric that samples rollouts of its own."""
    summary: str

    @classmethod
    def of(cls, metric: MetricInfo) -> MetricEntry:
        return cls(
            name=metric.name,
            direction=metric.direction,
            target=metric.target,
            kind=metric.kind,
            mean=metric.mean,
            bounds=list(metric.bounds) if metric.bounds else None,
            version=metric.version,
            own_steps=metric.own_steps,
            summary=metric.summary,
        )

    @property
    def reading(self) -> str:
        """The direction in words; empty where the metric has none."""
        return direction_words(self.direction, self.target)

    @property
    def legend(self) -> str:
        """Direction and kind, for a heading; of a metric of quality the direction alone."""
        marks = {
            "quality": "",
            "diagnostic": "a diagnostic, which selects no best arm",
            "description": "a description, which selects no best arm",
        }
        parts = [self.reading or "no direction", marks[self.kind]]
        return "; ".join(filter(None, parts))


class LongVideos(Entry):
    """The clips of long videos, in frames of pixels: see `LongVideoResult`."""

    frames: int
    stops: list[int]
    ends: dict[str, int]


class Measurement(Entry):
    """An arm, training seed and sampling setting that was scored; see `EvalResult`. The scores are
    in samples.parquet and drift.parquet."""

    arm: str
    method: str
    backbone: str
    memory: str | None
    seed: int | None
    nfe: int | None
    sampler: str | None
    """The study's sampler under which the arm is compared; see `setting`."""
    passes: dict[str, float]
    own_rollouts: list[str]
    setting: str | None
    """How the arm was sampled where its own `evaluation` differs from the study's, in words
    (`ode, shift 3`); null where it does not. Its sampler may then be another than `sampler`."""
    long: LongVideos | None

    @classmethod
    def of(cls, result: EvalResult) -> Measurement:
        long = None
        if clips := result.long:
            long = LongVideos(frames=clips.frames, stops=clips.stops, ends=clips.ends)
        return cls(
            arm=result.arm,
            method=result.method,
            backbone=result.backbone,
            memory=result.memory,
            seed=result.seed,
            nfe=result.nfe,
            sampler=result.sampler,
            passes=result.passes,
            own_rollouts=list(result.own_rollouts),
            setting=result.setting,
            long=long,
        )


class ArmSetting(Entry):
    """An arm or baseline under one sampling setting; real videos have no `nfe` and `sampler`."""

    arm: str
    method: str
    baseline: bool
    """It was measured and not trained."""
    backbone: str
    memory: str | None
    nfe: int | None
    sampler: str | None
    """The study's sampler under which the arm is compared; see `setting`."""


class Estimate(Entry):
    """A mean over training seeds with its interval, over seeds and prompts together."""

    mean: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    """The standard deviation of one training's value, over seeds; null with one seed."""
    prompt_se: float | None
    """The standard error from the choice of prompts, for these very networks."""
    not_finite: int = 0
    """How many of the `scores` behind it (of all seeds) are not finite."""
    scores: int | None = None


class ScoreRow(ArmSetting, Estimate):
    """An arm's mean in one metric."""

    metric: str
    direction: Direction
    passes: dict[str, float]
    """Passes over a whole video: `nfe`, `guidance`, `memory` (cache writes)."""
    setting: str | None = None
    """How the arm was sampled where its own `evaluation` differs from the study's, in words
    (`ode, shift 3`); null where it does not. Its sampler may then be another than `sampler`."""
    seeds: int
    prompts: int
    videos: int
    winner: bool
    """Its difference to every other trained arm of the setting excludes zero on the better side."""
    carried: bool = False
    """Taken over from an older rendering, which kept no features."""


class Comparison(Entry):
    """The paired difference `a` minus `b`; for a metric with a target, of the distances to it."""

    a: str
    b: str
    backbone: str
    nfe: int
    sampler: str
    metric: str
    direction: Direction
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided, unadjusted: the level at which the interval would touch zero; null without one,
    and where an arm was trained once: its interval covers the choice of prompts alone."""
    significant: bool
    """The interval excludes zero, without an adjustment; false where an arm was trained once."""
    better: Literal["a", "b"] | None
    """The side that is significantly better; null if neither is, or without a direction."""
    seeds: int
    paired_by_seed: bool
    carried: bool = False

    @property
    def better_arm(self) -> str | None:
        return {"a": self.a, "b": self.b, None: None}[self.better]


class DriftPoint(Estimate):
    """The clip that ends at frame `stop`."""

    stop: int


class DriftCurve(ArmSetting):
    """A metric over the clips of long videos; a clip has `frames` frames, the training's length."""

    metric: str
    direction: Direction
    seeds: int
    prompts: int
    frames: int
    points: list[DriftPoint]
    carried: bool = False


class DriftRow(ScoreRow):
    """The last clip of videos of a `length`, in multiples of the training's, or the `slope`: the
    change of a video's score per training length."""

    length: int | None
    slope: bool


class DriftComparison(Comparison):
    length: int | None
    slope: bool


class Drift(Entry):
    """Quality over the length of long videos."""

    prompts: list[str]
    lengths: list[int]
    metrics: list[MetricEntry]
    curves: list[DriftCurve]
    values: list[DriftRow]
    comparisons: list[DriftComparison]
