"""Quality over the length of videos: curves, slopes, and values at the end of each length.

A curve's point is a metric over the clips that end at one frame. The slope is fitted to each video
by least squares, per training length, and averaged; it exists for metrics that are means of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluate.records import EvalResult, LongVideoResult
from benchmarks.stats.comparisons import (
    compare,
    compare_hypothesis,
    pairs,
    score_row,
    with_winners,
)
from benchmarks.stats.intervals.arm_scores import ArmScores, Key, Store, group_scores, key_of
from benchmarks.stats.intervals.bootstrap import Bootstrap
from benchmarks.stats.model.entries import (
    ArmSetting,
    Comparison,
    Drift,
    DriftComparison,
    DriftCurve,
    DriftPoint,
    DriftRow,
    Estimate,
    MetricEntry,
    ScoreRow,
)
from benchmarks.study.entries.config import Hypothesis
from benchmarks.study.metric_info import MetricInfo


def slopes(long: LongVideoResult, metric: str) -> NDArray[np.float64]:
    """Change of every video's score per training length, `[P]`, by least squares over clips."""
    time = np.array(long.stops, np.float64) / long.frames
    time -= time.mean()
    scores = np.asarray(long.rows[metric], np.float64)
    scores = scores - scores[0]  # so that equal scores have exactly no slope
    return np.asarray(time @ scores / (time @ time))


class DriftAnalysis:
    """The long videos of a study; `prompts` are those of their rows."""

    def __init__(
        self,
        measured: Sequence[EvalResult],
        metrics: Sequence[MetricInfo],
        prompts: Sequence[str],
        resamples: int = 1000,
        store: Store | None = None,
    ) -> None:
        self.store: Store = {} if store is None else store
        self.measured = [(result, result.long) for result in measured if result.long]
        names = {name for _, long in self.measured for name in long.rows}
        names |= {key[-1] for key in self.store if key[0].startswith("stop ")}
        self.metrics = [metric for metric in metrics if metric.name in names]
        self.prompts = list(prompts)
        self.bootstrap = Bootstrap(prompts, resamples)
        self.lengths = sorted({int(length) for _, long in self.measured for length in long.ends})
        self._at_end = {length: self._end(length) for length in self.lengths}
        self._slopes = self._slope_scores()

    @property
    def parts(self) -> int:
        """The clips of all curves, which take most of the time."""
        return sum(len(long.stops) for _, long in self.measured)

    def section(self, progress: Callable[[int], None]) -> Drift:
        """The key `drift` of results.json; `progress` is called with the number of parts done."""
        values: list[DriftRow] = []
        comparisons: list[DriftComparison] = []
        for length, arms in [*self._at_end.items(), (None, self._slopes)]:
            of_length: dict[str, Any] = {"length": length, "slope": length is None}
            rows, differences = self._compared(arms, length is None)
            values += [DriftRow(**dict(row), **of_length) for row in rows]
            comparisons += [DriftComparison(**dict(entry), **of_length) for entry in differences]
        return Drift(
            prompts=self.prompts,
            lengths=self.lengths,
            metrics=[MetricEntry.of(metric) for metric in self.metrics],
            curves=self._curves(progress),
            values=values,
            comparisons=comparisons,
        )

    def compare(self, hypothesis: Hypothesis) -> Comparison | None:
        """The comparison of a hypothesis about a `length` or the `slope`."""
        if hypothesis.slope:
            arms = self._slopes
        else:
            arms = self._at_end.get(hypothesis.length or 0, [])
        metrics = {metric.name: metric for metric in self._read(hypothesis.slope)}
        return compare_hypothesis(hypothesis, arms, metrics, self.bootstrap)

    def _read(self, slope: bool) -> list[MetricInfo]:
        """The metrics of values, or of slopes: means without bounds, and without a direction where
        a value has a target."""
        if not slope:
            return self.metrics
        return [
            replace(
                metric,
                reduce=_mean,
                bounds=None,
                target=None,
                direction="none" if metric.direction == "target" else metric.direction,
                kind="description" if metric.direction == "target" else metric.kind,
            )
            for metric in self.metrics
        ]

    def _compared(
        self, arms: Sequence[ArmScores], slope: bool
    ) -> tuple[list[ScoreRow], list[Comparison]]:
        metrics = self._read(slope)
        comparisons = [
            comparison
            for a, b in pairs(arms)
            for metric in metrics
            if (comparison := compare(a, b, metric, self.bootstrap))
        ]
        rows = [
            score_row(arm, metric, self.bootstrap)
            for metric in metrics
            for arm in arms
            if metric.name in arm.replicates
        ]
        return with_winners(rows, comparisons, metrics), comparisons

    def _end(self, length: int) -> list[ArmScores]:
        key = str(length)
        ends: dict[int, list[EvalResult]] = {}
        for result, long in self.measured:
            if key in long.ends:
                end = long.ends[key]
                ends.setdefault(long.stops[end], []).append(_clip(result, long, end))
        return [arm for stop, clips in ends.items() for arm in self._group(clips, stop)]

    def _group(self, clips: Sequence[EvalResult], stop: int) -> list[ArmScores]:
        return group_scores(clips, self.metrics, self.bootstrap, self.store, f"stop {stop}")

    def _slope_scores(self) -> list[ArmScores]:
        fitted = []
        for result, long in self.measured:
            names = [
                metric.name
                for metric in self.metrics
                if metric.name in long.rows and len(long.stops) > 1 and metric.mean
            ]
            rows = {name: slopes(long, name) for name in names}
            fitted.append(replace(result, rows=rows, long=None))
        return group_scores(fitted, self._read(slope=True), self.bootstrap)

    def _curves(self, progress: Callable[[int], None]) -> list[DriftCurve]:
        done = 0
        firsts: dict[tuple[Key, str], tuple[ScoreRow, int]] = {}
        points: dict[tuple[Key, str], list[DriftPoint]] = {}
        groups: dict[Key, list[tuple[EvalResult, LongVideoResult]]] = {}
        for result, long in self.measured:
            groups.setdefault(key_of(result), []).append((result, long))
        for key, group in groups.items():
            long = group[0][1]
            for clip, stop in enumerate(long.stops):
                clips = [_clip(result, of_seed, clip) for result, of_seed in group]
                [arm] = self._group(clips, stop)
                done += len(group)
                progress(done)
                for metric in self.metrics:
                    if metric.name in arm.replicates:
                        row = score_row(arm, metric, self.bootstrap)
                        firsts.setdefault((key, metric.name), (row, long.frames))
                        point = DriftPoint(stop=stop, **_part(row, Estimate))
                        points.setdefault((key, metric.name), []).append(point)
        return [_curve(row, frames, points[key]) for key, (row, frames) in firsts.items()]


def _curve(row: ScoreRow, frames: int, points: list[DriftPoint]) -> DriftCurve:
    return DriftCurve(
        **_part(row, ArmSetting),
        metric=row.metric,
        direction=row.direction,
        seeds=row.seeds,
        prompts=row.prompts,
        frames=frames,
        points=points,
    )


def _part(row: ScoreRow, kind: type[ArmSetting] | type[Estimate]) -> dict[str, Any]:
    """The fields of a row that `kind` names."""
    return {name: getattr(row, name) for name in kind.model_fields}


def _clip(result: EvalResult, long: LongVideoResult, clip: int) -> EvalResult:
    """The scores of one clip, as if it were a video of its own."""
    return replace(result, rows={name: rows[clip] for name, rows in long.rows.items()}, long=None)


def _mean(rows: Any) -> float:
    return float(rows.mean())
