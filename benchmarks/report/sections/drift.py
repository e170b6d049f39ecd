"""Quality over the length of videos, arranged for a report: settings, tables, plots and films."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.evaluate.pictures import FRAMES, LONG_FRAMES, Pictures
from benchmarks.report.model.formats import decimals, listed
from benchmarks.report.model.model import View
from benchmarks.report.sections.figures import drift_plot
from benchmarks.report.sections.gallery import Player, chosen_frames, sheet
from benchmarks.report.sections.tables import COMPARISON_COLUMNS, ROW_COLUMNS, latex_rows, write_csv
from benchmarks.stats.model.entries import (
    Comparison,
    Drift,
    DriftComparison,
    DriftCurve,
    DriftRow,
    MetricEntry,
    ScoreRow,
)
from benchmarks.study.text import FileNames

#: Arms that the sentence on drift names.
MOST_NAMED = 5
#: Bytes of all films together.
FILM_BUDGET = 1_200_000

#: Tables that are not of one metric.
DRIFT_TABLES = ("drift-curves.csv", "drift-comparisons.csv")

Cell = TypeVar("Cell", DriftRow, DriftComparison)


@dataclass(frozen=True)
class DriftSetting:
    """Long videos are compared under the same backbone, number of steps and sampler."""

    backbone: str
    nfe: int
    sampler: str | None

    def title(self, among: Sequence[DriftSetting]) -> str:
        """Its number of steps, and how else it differs from the others."""
        parts = ["1 step" if self.nfe == 1 else f"{self.nfe} steps"]
        if len({setting.backbone for setting in among}) > 1:
            parts.insert(0, self.backbone)
        return ", ".join(parts)

    def holds(self, entry: ScoreRow | DriftCurve | Comparison) -> bool:
        return self.matches(entry.backbone, entry.nfe, entry.sampler)

    def matches(self, backbone: str, nfe: int | None, sampler: str | None) -> bool:
        """Real videos, which no one samples, belong to every setting of their backbone."""
        if backbone != self.backbone:
            return False
        return nfe is None or (nfe, sampler) == (self.nfe, self.sampler)


@dataclass(frozen=True)
class DriftLine:
    arm: str
    baseline: bool
    cells: list[DriftRow | None]


@dataclass(frozen=True)
class DriftPair:
    a: str
    b: str
    cells: list[DriftComparison | None]


@dataclass(frozen=True)
class DriftTable:
    """A metric under one setting: the slope, where there is one, and the value at each length."""

    metric: MetricEntry
    setting: DriftSetting
    columns: list[int | None]  # a length; None is the slope
    lines: list[DriftLine]
    places: list[int]  # decimal places of each column
    pairs: list[DriftPair]
    pair_places: list[int]


@dataclass(frozen=True)
class Film:
    """The long videos of one prompt: of each arm a player and a strip; `mark` is the share of the
    strip that is as long as the training's videos."""

    prompt: str
    lines: list[tuple[str, Player, Player]]
    mark: float


class DriftView:
    """The section `drift` of results.json, arranged for a report."""

    def __init__(self, view: View, drift: Drift) -> None:
        self.view, self.drift = view, drift
        self.metrics, self.lengths = drift.metrics, drift.lengths
        self.settings = list(
            dict.fromkeys(
                DriftSetting(curve.backbone, curve.nfe, curve.sampler)
                for curve in drift.curves
                if curve.nfe is not None
            )
        )
        self.settings.sort(key=lambda setting: abs(math.log2(setting.nfe / 4)))

    def curves(self, metric: MetricEntry, setting: DriftSetting) -> list[DriftCurve]:
        curves = [c for c in self.drift.curves if c.metric == metric.name and setting.holds(c)]
        return sorted(curves, key=lambda curve: self._place(curve.arm))

    def plots(self) -> dict[tuple[str, DriftSetting], str]:
        return {
            (metric.name, setting): plot
            for setting in self.settings
            for metric in self.metrics
            if (plot := drift_plot(self.curves(metric, setting), metric, self.view, self.lengths))
        }

    def table(self, metric: MetricEntry, setting: DriftSetting) -> DriftTable:
        values = [
            row for row in self.drift.values if row.metric == metric.name and setting.holds(row)
        ]
        comparisons = [
            entry
            for entry in self.drift.comparisons
            if entry.metric == metric.name and setting.holds(entry)
        ]
        sloped = any(row.slope for row in values)
        columns: list[int | None] = [*([None] if sloped else []), *self.lengths]
        lines = []
        for arm in sorted(dict.fromkeys(row.arm for row in values), key=self._place):
            rows = [row for row in values if row.arm == arm]
            lines.append(DriftLine(arm, rows[0].baseline, _cells(rows, columns)))
        pairs = []
        for a, b in dict.fromkeys((entry.a, entry.b) for entry in comparisons):
            entries = [entry for entry in comparisons if (entry.a, entry.b) == (a, b)]
            pairs.append(DriftPair(a, b, _cells(entries, columns)))
        return DriftTable(
            metric,
            setting,
            columns,
            lines,
            _places(columns, [(row.slope, row.mean) for row in values]),
            pairs,
            _places(columns, [(entry.slope, entry.difference) for entry in comparisons]),
        )

    def tables(self) -> list[DriftTable]:
        tables = [self.table(metric, s) for s in self.settings for metric in self.metrics]
        return [table for table in tables if table.lines]

    def films(self, pictures: Pictures) -> list[Film]:
        """Films of as many prompts as there are videos of and the budget lets in, under the first
        setting; the first seed's."""
        if not self.settings:
            return []
        setting, videos = self.settings[0], dict[str, np.ndarray]()
        for (arm, backbone, nfe, sampler, length), pixels in pictures.items():
            steps = None if nfe == "None" else int(nfe)
            if length == "long" and setting.matches(backbone, steps, sampler):
                videos.setdefault(arm, pixels)
        curve = self.drift.curves[0]
        whole = chosen_frames(curve.points[-1].stop, FRAMES)
        mark = float(np.mean(whole < curve.frames))
        arms = sorted(videos, key=lambda arm: (arm != "real", self._place(arm)))
        films: list[Film] = []
        size = 0
        for index in range(min((len(of_arm) for of_arm in videos.values()), default=0)):
            lines = []
            for number, arm in enumerate(arms):
                video, name = videos[arm][index], f"{index}_{number}"
                moving = Player(f"l{name}", arm, setting.nfe, sheet(video, 64, LONG_FRAMES))
                strip = Player(f"f{name}", arm, setting.nfe, sheet(video, 96))
                lines.append((arm, moving, strip))
            size += sum(len(p.sheet.uri) for _, *both in lines for p in both)
            if size > FILM_BUDGET:
                break
            films.append(Film(self.drift.prompts[index], lines, mark))
        return films

    def write_tables(self, folder: Path, names: FileNames) -> None:
        """CSV files of curves and comparisons, and one CSV and LaTeX file a metric."""
        points = [
            {**dict(curve), **dict(point)} for curve in self.drift.curves for point in curve.points
        ]
        columns = ("metric", "stop", "frames", *ROW_COLUMNS)
        write_csv(folder / "drift-curves.csv", columns, points)
        more = ("slope", "length")
        comparisons = [dict(entry) for entry in self.drift.comparisons]
        write_csv(folder / "drift-comparisons.csv", (*COMPARISON_COLUMNS, *more), comparisons)
        for metric in self.metrics:
            values = [dict(row) for row in self.drift.values if row.metric == metric.name]
            name = names.of(".csv", "drift", metric.name)
            write_csv(folder / name, (*ROW_COLUMNS, *more), values)
        for table in self.tables():
            title = table.setting.title(self.settings) if len(self.settings) > 1 else ""
            name = names.of(".tex", "drift", table.metric.name, title)
            lines = [(line.arm, line.baseline, line.cells) for line in table.lines]
            heads = [column_title(column) for column in table.columns]
            text = latex_rows(table.metric, "length", heads, lines, table.places)
            (folder / name).write_text(text, encoding="utf-8")

    def _place(self, arm: str) -> tuple[bool, int]:
        """Arms as in the rest of the report, baselines after them."""
        arms = self.view.arms
        return arm not in arms, arms.index(arm) if arm in arms else 0


def _cells(entries: Sequence[Cell], columns: Sequence[int | None]) -> list[Cell | None]:
    by_column = {None if entry.slope else entry.length: entry for entry in entries}
    return [by_column.get(column) for column in columns]


def column_title(column: int | None) -> str:
    """
    >>> column_title(4), column_title(None)
    ('4×', 'slope')
    """
    return "slope" if column is None else f"{column}×"


def _places(
    columns: Sequence[int | None], values: Sequence[tuple[bool, float | None]]
) -> list[int]:
    """Decimal places: one number for the slope, one for the lengths together. `values` are whether
    it is a slope, and the number."""
    slope = decimals(value for sloped, value in values if sloped)
    rest = decimals(value for sloped, value in values if not sloped)
    return [slope if column is None else rest for column in columns]


def sentence(view: View) -> str:
    """Which arms get worse over long videos, in the first metric of quality that has slopes."""
    if view.results.drift is None:
        return ""
    drift = DriftView(view, view.results.drift)
    for table in drift.tables():
        metric = table.metric
        if None not in table.columns or metric.direction not in ("higher", "lower"):
            continue
        if metric.kind != "quality":
            continue
        sign = 1 if metric.direction == "higher" else -1
        ways: dict[str, list[str]] = {
            "gets worse": [],
            "gets better": [],
            "shows no change": [],
            "has no interval": [],
            "shows nothing from one training": [],
        }
        for line in table.lines:
            slope = line.cells[0]
            if line.baseline or slope is None:
                continue
            if slope.low is None or slope.high is None:
                ways["has no interval"].append(line.arm)
            elif slope.seeds == 1:
                ways["shows nothing from one training"].append(line.arm)
            elif slope.low <= 0 <= slope.high:
                ways["shows no change"].append(line.arm)
            else:
                better = sign * (slope.mean or 0) > 0
                ways["gets better" if better else "gets worse"].append(line.arm)
        count = sum(map(len, ways.values()))
        parts = [f"{way} for {_those(arms, count)}" for way, arms in ways.items() if arms]
        if any(ways[way] for way in ("gets worse", "gets better", "shows no change")):
            longest = f"{drift.lengths[-1]}× the training length"
            steps = table.setting.title(drift.settings)
            return (
                f"Over {longest}, at {steps}, {metric.name} {listed(parts)} "
                "(95% intervals, not adjusted for the number of arms)."
            )
    return ""


def _those(arms: Sequence[str], count: int) -> str:
    """Some of `count` arms, by name where a sentence has room for them."""
    if len(arms) <= MOST_NAMED:
        return listed(arms)
    return f"all {count} arms" if len(arms) == count else f"{len(arms)} of {count} arms"
