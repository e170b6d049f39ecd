"""Quality over the length of videos: curves, slopes, and values at the end of each length.

A curve's point is a metric over the clips that end at one frame. The slope is fitted to each video
by least squares, per training length, and averaged; it exists for metrics that are means of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluate.records import EvalResult, Long
from benchmarks.stats.bootstrap import Bootstrap
from benchmarks.stats.comparisons import (
    Cell,
    Store,
    cells_of,
    compare,
    judge,
    mark_winners,
    pairs,
    row,
)
from benchmarks.study.metric_info import MetricInfo

#: What a row of a table says of its arm, and what of its value.
ARM = ("arm", "method", "reference", "backbone", "memory", "nfe", "sampler")
VALUE = ("mean", "low", "high", "seed_sd", "prompt_se", "not_finite", "scores")


def slopes(long: Long, metric: str) -> NDArray[np.float64]:
    """Change of every video's score per training length, `[P]`, by least squares over clips."""
    time = np.array(long.stops, np.float64) / long.frames
    time -= time.mean()
    scores = np.asarray(long.rows[metric], np.float64)
    return np.asarray(time @ scores / (time @ time))


class Drift:
    """What the long videos of a study showed; `prompts` are those of their rows."""

    def __init__(
        self,
        measured: Sequence[EvalResult],
        metrics: Sequence[MetricInfo],
        prompts: Sequence[str],
        resamples: int = 1000,
        store: Store | None = None,
    ) -> None:
        self.store: Store = {} if store is None else store
        self.measured = [(one, one.long) for one in measured if one.long]
        known = {name for _, long in self.measured for name in long.rows}
        known |= {key[-1] for key in self.store if key[0].startswith("stop ")}
        self.metrics = [metric for metric in metrics if metric.name in known]
        self.prompts = list(prompts)
        self.bootstrap = Bootstrap(prompts, resamples)
        ends = {int(length) for _, long in self.measured for length in long.ends}
        self.lengths = sorted(ends)
        self._at = {length: self._end(length) for length in self.lengths}
        self._slopes = self._slope_cells()

    @property
    def parts(self) -> int:
        """The clips of all curves: what takes the time."""
        return sum(len(long.stops) for _, long in self.measured)

    def section(self, told: Callable[[int], None]) -> dict[str, Any]:
        """What results.json holds under `drift`; `told` is called with the parts that are done."""
        values: list[dict[str, Any]] = []
        comparisons: list[dict[str, Any]] = []
        for length, cells in [*self._at.items(), (None, self._slopes)]:
            rows, found = self._compared(cells, length is None)
            values += [{**entry, "length": length, "slope": length is None} for entry in rows]
            comparisons += [{**entry, "length": length, "slope": length is None} for entry in found]
        return {
            "prompts": self.prompts,
            "lengths": self.lengths,
            "metrics": [metric.plain() for metric in self.metrics],
            "curves": self._curves(told),
            "values": values,
            "comparisons": comparisons,
        }

    def judge(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """An outcome about a `length` or the `slope`, with its comparison."""
        sloped = bool(outcome.get("slope"))
        cells = self._slopes if sloped else self._at.get(outcome["length"], [])
        by_name = {metric.name: metric for metric in self._read(sloped)}
        return judge(outcome, cells, by_name, self.bootstrap)

    def _read(self, sloped: bool) -> list[MetricInfo]:
        """The metrics of values, or of slopes: means without bounds, and without a direction where
        a value has a target."""
        if not sloped:
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
        self, cells: Sequence[Cell], sloped: bool
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        metrics = self._read(sloped)
        comparisons = [
            entry
            for a, b in pairs(cells)
            for metric in metrics
            if (entry := compare(a, b, metric, self.bootstrap))
        ]
        rows = [
            row(cell, metric, self.bootstrap)
            for metric in metrics
            for cell in cells
            if metric.name in cell.replicates
        ]
        mark_winners(rows, comparisons, metrics)
        return rows, comparisons

    def _end(self, length: int) -> list[Cell]:
        key = str(length)
        ends: dict[int, list[EvalResult]] = {}
        for one, long in self.measured:
            if key in long.ends:
                end = long.ends[key]
                ends.setdefault(long.stops[end], []).append(_clip(one, long, end))
        return [cell for stop, clips in ends.items() for cell in self._cells(clips, stop)]

    def _cells(self, clips: Sequence[EvalResult], stop: int) -> list[Cell]:
        return cells_of(clips, self.metrics, self.bootstrap, self.store, f"stop {stop}")

    def _slope_cells(self) -> list[Cell]:
        fitted = []
        for one, long in self.measured:
            names = [
                metric.name
                for metric in self.metrics
                if metric.name in long.rows and len(long.stops) > 1 and metric.mean
            ]
            rows = {name: slopes(long, name) for name in names}
            fitted.append(replace(one, rows=rows, long=None))
        return cells_of(fitted, self._read(sloped=True), self.bootstrap)

    def _curves(self, told: Callable[[int], None]) -> list[dict[str, Any]]:
        done = 0
        curves: dict[tuple[Any, ...], dict[str, Any]] = {}
        groups: dict[tuple[Any, ...], list[tuple[EvalResult, Long]]] = {}
        for one, long in self.measured:
            groups.setdefault((one.arm, one.backbone, one.nfe, one.sampler), []).append((one, long))
        for group in groups.values():
            long = group[0][1]
            for clip, stop in enumerate(long.stops):
                clips = [_clip(one, of_seed, clip) for one, of_seed in group]
                [cell] = self._cells(clips, stop)
                done += len(group)
                told(done)
                for metric in self.metrics:
                    if metric.name not in cell.replicates:
                        continue
                    entry = row(cell, metric, self.bootstrap)
                    curve = curves.setdefault(
                        (*cell.setting, cell.first.arm, metric.name),
                        {key: entry[key] for key in (*ARM, "metric", "better", "seeds", "prompts")}
                        | {"frames": long.frames, "points": []},
                    )
                    point = {"stop": stop, **{key: entry[key] for key in VALUE}}
                    curve["points"].append(point)
        return list(curves.values())


def _clip(one: EvalResult, long: Long, clip: int) -> EvalResult:
    """The measurement of one clip, as if it were a video of its own."""
    return replace(one, rows={name: rows[clip] for name, rows in long.rows.items()}, long=None)


def _mean(rows: Any) -> float:
    return float(rows.mean())
