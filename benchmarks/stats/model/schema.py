"""The types of results.json, schema 3: what `benchmarks.stats` computes and `benchmarks.report`
shows.

`results.schema.json` is their JSON Schema (`benchmarks.stats.model.json_schema`). Numbers that do
not exist, or are not finite, are null. Intervals are 95%.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from benchmarks.stats.model.entries import (
    Comparison,
    Drift,
    Entry,
    Measurement,
    MetricEntry,
    OpenEntry,
    ScoreRow,
)
from benchmarks.study.entries.claims import Claim
from benchmarks.study.entries.config import Hypothesis
from benchmarks.study.entries.tuning import Tuning
from benchmarks.study.stated import Stated

SCHEMA: Literal[3] = 3

#: Of a hypothesis or a claim. After Holm's adjustment for the number of hypotheses p is below 0.05
#: and the difference lies on the stated side (supported) or the other (contradicted); inconclusive
#: is neither.
Verdict = Literal["supported", "contradicted", "inconclusive", "not measured"]


class HypothesisResult(Entry):
    """A hypothesis of the study's file, with the comparison that decides it."""

    name: str | None
    a: str
    b: str
    metric: str
    nfe: int
    sampler: str
    length: int | None
    slope: bool
    claim: str
    comparison: Comparison | None
    p_holm: float | None
    """`comparison.p` after Holm's adjustment for the number of measured hypotheses."""
    verdict: Verdict
    stated: Stated


class ClaimResult(Entry):
    """A claim of a paper: supported if all of its hypotheses are, contradicted if any is."""

    claim: str
    source: str
    hypotheses: list[int]
    """Indices into `hypotheses`."""
    verdict: Verdict


class Quoted(Entry):
    """A difference as the first table quotes it; `p_holm` is adjusted for all comparisons that
    answer the same question, see `AnswerCounts`."""

    difference: float | None
    low: float | None
    high: float | None
    p_holm: float | None


class Undistilled(Quoted):
    """An undistilled network with as many passes. `verdict`: the best arm compared with it."""

    arm: str
    memory: str | None = None
    """Of the first arm with this backbone, whose options it is measured with."""
    nfe: int
    sampler: str
    passes: dict[str, float]
    mean: float | None
    verdict: Literal["better", "worse", "inconclusive", "not measured"]


class AnswerCost(Entry):
    """What one training of the best arm cost."""

    updates: float | None
    flops: float | None
    seconds: float | None


class AnswerRow(Quoted):
    """A backbone and number of steps; the quoted difference is the best arm minus the runner-up."""

    backbone: str
    sampler: str
    nfe: int
    best: str
    memory: str | None = None
    mean: float | None
    passes: dict[str, float]
    setting: str | None
    seeds: int
    worth: Literal["yes", "no", "inconclusive", "not measured"]
    """Whether the best arm is better than its undistilled network in every setting with as many
    passes that was measured."""
    undistilled: list[Undistilled]
    runner_up: str | None
    verdict: Literal["supported", "inconclusive", "only arm"]
    """Whether the best arm is better than every other arm, and the largest of those `p_holm`."""
    p_best: float | None
    missing: list[str] = []
    """Arms without a mean here: scores that are not finite, or trainings that failed. No arm is the
    best of all while there are any."""
    cost: AnswerCost


class AnswerCounts(Entry):
    """Comparisons that Holm's adjustment of the first table counts: of arms with undistilled
    networks, and of arms with each other."""

    undistilled: int
    arms: int


class Answer(Entry):
    """The first table of a report, by the study's primary metric."""

    metric: str
    comparisons: AnswerCounts
    rows: list[AnswerRow]


class Passes(Entry):
    forward: float
    backward: float


class FailedTraining(Entry):
    seed: int
    updates: int
    error: str


class ArmCost(Entry):
    """The cost of one training of an arm: the mean over the seeds that did not fail."""

    arm: str
    method: str | None
    backbone: str | None
    memory: str | None
    seeds: list[int]
    updates: float | None
    passes: dict[str, Passes]
    """By role."""
    flops: float | None
    budget: float | None
    off_budget: float | None
    """`flops` over `budget`, less 1; null in a study that matches updates, which has no budget."""
    seconds: float | None
    errors: list[FailedTraining]


class TrainingCurve(Entry):
    """The history of a training: points with `step`, `seconds` and the logged scalars."""

    arm: str
    seed: int
    points: list[dict[str, float | None]]


class BootstrapSettings(Entry):
    """How many resamples: of means, and of statistics of features."""

    resamples: int
    feature_resamples: int


class StudyRecord(OpenEntry):
    """The resolved study; its other keys are those of
    `benchmarks.study.entries.config.StudyConfig`."""

    name: str
    title: str = ""
    description: str = ""
    hypotheses: list[Hypothesis] = []
    claims: list[Claim] = []
    primary_metric: str | None = None
    tuning: Tuning | None = None


class Provenance(OpenEntry):
    """Versions, commit, hardware and digests of inputs, and what is missing or mixed."""

    failed_baselines: dict[str, str] = {}
    """By name why baselines are missing, and by label why metrics have no numbers, or fewer."""
    failed_metrics: dict[str, str] = {}
    trained_on: list[dict[str, Any]] = []
    """With which code, device, precision and torch; several entries say that a report mixes."""
    measured_on: list[dict[str, Any]] = []


class Results(Entry):
    """The content of results.json."""

    model_config = ConfigDict(title="results.json")

    version: Literal[3] = Field(default=SCHEMA, alias="schema")
    study: StudyRecord
    metrics: list[MetricEntry]
    prompts: list[str]
    """The prompt of every row of scores; a prompt may have several."""
    measurements: list[Measurement]
    rows: list[ScoreRow]
    comparisons: list[Comparison]
    drift: Drift | None
    hypotheses: list[HypothesisResult]
    claims: list[ClaimResult]
    answer: Answer | None
    arms: list[ArmCost]
    curves: list[TrainingCurve]
    comparisons_count: int
    """Comparisons in metrics of quality, long videos included: how many, how many intervals exclude
    zero, and how many would by chance if no arm differed from another."""
    comparisons_significant: int
    comparisons_by_chance: float
    bootstrap: BootstrapSettings
    provenance: Provenance
    carried: bool = False
    """Some rows and comparisons are `carried`."""

    def to_json(self) -> dict[str, Any]:
        """Dictionaries, lists and scalars, as results.json holds them."""
        return self.model_dump(mode="json", by_alias=True)

    def with_failed_metrics(self, reasons: Mapping[str, str]) -> Results:
        """The same with `reasons`, by label, why metrics have no numbers, or fewer."""
        provenance = self.provenance.model_copy(update={"failed_metrics": dict(reasons)})
        return self.model_copy(update={"provenance": provenance})
