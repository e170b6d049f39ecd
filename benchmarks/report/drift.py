"""Quality over the length of videos, arranged for a report: settings, tables, plots and films."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluate.pictures import FRAMES, LONG_FRAMES, Pictures
from benchmarks.report.figures import drift_plot
from benchmarks.report.formats import decimals, listed
from benchmarks.report.gallery import Player, chosen_frames, sheet
from benchmarks.report.model import Entry, View
from benchmarks.report.tables import COMPARISON_COLUMNS, ROW_COLUMNS, latex_rows, write_csv
from benchmarks.study.text import FileNames

#: Arms that the sentence on drift calls by name.
MOST_NAMED = 5
#: Bytes of all films together.
FILM_BUDGET = 1_200_000

#: Tables that are not of one metric.
DRIFT_TABLES = ("drift-curves.csv", "drift-comparisons.csv")


@dataclass(frozen=True)
class DriftSetting:
    """Long videos are compared under the same backbone, number of steps and sampler."""

    backbone: str
    nfe: int
    sampler: str

    def title(self, among: Sequence[DriftSetting]) -> str:
        """Its number of steps, and what else tells it from the others."""
        parts = ["1 step" if self.nfe == 1 else f"{self.nfe} steps"]
        if len({setting.backbone for setting in among}) > 1:
            parts.insert(0, self.backbone)
        return ", ".join(parts)

    def holds(self, entry: Mapping[str, Any]) -> bool:
        """Real videos, which no one samples, belong to every setting of their backbone."""
        if entry["backbone"] != self.backbone:
            return False
        return entry["nfe"] is None or (entry["nfe"], entry["sampler"]) == (self.nfe, self.sampler)


@dataclass(frozen=True)
class DriftTable:
    """A metric under one setting: the slope, where there is one, and the value at each length."""

    metric: Entry
    setting: DriftSetting
    columns: list[int | None]  # a length; None is the slope
    places: list[int]
    lines: list[tuple[str, bool, list[Entry | None]]]  # arm, whether a reference, cells
    pairs: list[tuple[str, str, list[Entry | None]]]
    pair_places: list[int]


@dataclass(frozen=True)
class Film:
    """The long videos of one prompt: of each arm a player and a strip; `mark` is the share of the
    strip that is as long as the training's videos."""

    prompt: str
    lines: list[tuple[str, Player, Player]]
    mark: float


class DriftView:
    """The section `drift` of results.json, looked at as a report needs it."""

    def __init__(self, view: View) -> None:
        self.view, self.drift = view, view.results["drift"]
        self.metrics: list[Entry] = self.drift["metrics"]
        self.lengths: list[int] = self.drift["lengths"]
        self.settings = list(
            dict.fromkeys(
                DriftSetting(curve["backbone"], curve["nfe"], curve["sampler"])
                for curve in self.drift["curves"]
                if curve["nfe"] is not None
            )
        )
        self.settings.sort(key=lambda setting: abs(math.log2(setting.nfe / 4)))

    def curves(self, metric: Entry, setting: DriftSetting) -> list[Entry]:
        curves = self.drift["curves"]
        found = [c for c in curves if c["metric"] == metric["name"] and setting.holds(c)]
        return sorted(found, key=lambda curve: self._place(curve["arm"]))

    def plots(self) -> dict[tuple[str, DriftSetting], str]:
        return {
            (metric["name"], setting): plot
            for setting in self.settings
            for metric in self.metrics
            if (plot := drift_plot(self.curves(metric, setting), metric, self.view, self.lengths))
        }

    def table(self, metric: Entry, setting: DriftSetting) -> DriftTable:
        def cells(entries: Sequence[Entry], columns: Sequence[int | None]) -> list[Entry | None]:
            by_column = {None if entry["slope"] else entry["length"]: entry for entry in entries}
            return [by_column.get(column) for column in columns]

        here = [
            [e for e in self.drift[key] if e["metric"] == metric["name"] and setting.holds(e)]
            for key in ("values", "comparisons")
        ]
        values, comparisons = here
        sloped = any(entry["slope"] for entry in values)
        columns: list[int | None] = [None] if sloped else []
        columns += self.lengths
        arms = sorted(dict.fromkeys(e["arm"] for e in values), key=self._place)
        lines = []
        for arm in arms:
            own = [entry for entry in values if entry["arm"] == arm]
            lines.append((arm, own[0]["reference"], cells(own, columns)))
        pairs = []
        for a, b in dict.fromkeys((entry["a"], entry["b"]) for entry in comparisons):
            own = [entry for entry in comparisons if (entry["a"], entry["b"]) == (a, b)]
            pairs.append((a, b, cells(own, columns)))
        return DriftTable(
            metric,
            setting,
            columns,
            _places([line[2] for line in lines], "mean"),
            lines,
            pairs,
            _places([pair[2] for pair in pairs], "difference"),
        )

    def tables(self) -> list[DriftTable]:
        made = [self.table(metric, s) for s in self.settings for metric in self.metrics]
        return [table for table in made if table.lines]

    def films(self, pictures: Pictures) -> list[Film]:
        """Films of as many prompts as there are videos of and the budget lets in, under the first
        setting; the first seed's."""
        if not self.settings:
            return []
        setting, found = self.settings[0], dict[str, np.ndarray]()
        for (arm, backbone, nfe, sampler, length), pixels in pictures.items():
            steps = None if nfe == "None" else int(nfe)
            where = {"backbone": backbone, "nfe": steps, "sampler": sampler}
            if length == "long" and setting.holds(where):
                found.setdefault(arm, pixels)
        curve = self.drift["curves"][0]
        whole = chosen_frames(curve["points"][-1]["stop"], FRAMES)
        mark = float(np.mean(whole < curve["frames"]))
        arms = sorted(found, key=lambda arm: (arm != "real", self._place(arm)))
        films: list[Film] = []
        size = 0
        for place in range(min((len(video) for video in found.values()), default=0)):
            lines = []
            for number, arm in enumerate(arms):
                video, name = found[arm][place], f"{place}_{number}"
                moving = Player(f"l{name}", arm, setting.nfe, sheet(video, 64, LONG_FRAMES))
                strip = Player(f"f{name}", arm, setting.nfe, sheet(video, 96))
                lines.append((arm, moving, strip))
            size += sum(len(p.sheet.uri) for _, *both in lines for p in both)
            if size > FILM_BUDGET:
                break
            films.append(Film(self.drift["prompts"][place], lines, mark))
        return films

    def write_tables(self, folder: Path, names: FileNames) -> None:
        """CSV files of curves and comparisons, and one CSV and LaTeX file a metric."""
        points = [{**curve, **point} for curve in self.drift["curves"] for point in curve["points"]]
        columns = ("metric", "stop", "frames", *ROW_COLUMNS)
        write_csv(folder / "drift-curves.csv", columns, points)
        more = ("slope", "length")
        comparisons = self.drift["comparisons"]
        write_csv(folder / "drift-comparisons.csv", (*COMPARISON_COLUMNS, *more), comparisons)
        for metric in self.metrics:
            values = [v for v in self.drift["values"] if v["metric"] == metric["name"]]
            name = names.of(".csv", "drift", metric["name"])
            write_csv(folder / name, (*ROW_COLUMNS, *more), values)
        for table in self.tables():
            title = table.setting.title(self.settings) if len(self.settings) > 1 else ""
            name = names.of(".tex", "drift", table.metric["name"], title)
            lines = [(arm, reference, cells) for arm, reference, cells in table.lines]
            heads = [column_title(column) for column in table.columns]
            text = latex_rows(table.metric, "length", heads, lines, table.places)
            (folder / name).write_text(text, encoding="utf-8")

    def _place(self, arm: str) -> tuple[bool, int]:
        """Arms as in the rest of the report, references after them."""
        arms = self.view.arms
        return arm not in arms, arms.index(arm) if arm in arms else 0


def column_title(column: int | None) -> str:
    """
    >>> column_title(4), column_title(None)
    ('4×', 'slope')
    """
    return "slope" if column is None else f"{column}×"


def _places(lines: Sequence[Sequence[Entry | None]], key: str) -> list[int]:
    """Decimal places: one number for the slope, one for the lengths together."""
    cells = [cell for line in lines for cell in line if cell]
    slope = decimals(cell[key] for cell in cells if cell["slope"])
    rest = decimals(cell[key] for cell in cells if not cell["slope"])
    first = max(lines, key=len, default=[])
    sloped = bool(cells) and any(cell["slope"] for cell in cells)
    return [slope if sloped and place == 0 else rest for place in range(len(first))]


def sentence(view: View) -> str:
    """Which arms get worse over long videos, in the first metric of quality that has slopes."""
    drift = view.results["drift"]
    if not drift:
        return ""
    found = DriftView(view)
    for table in found.tables():
        if None not in table.columns or table.metric["better"] not in ("higher", "lower"):
            continue
        if table.metric["kind"] != "quality":
            continue
        sign = 1 if table.metric["better"] == "higher" else -1
        ways: dict[str, list[str]] = {"gets worse": [], "gets better": [], "shows no change": []}
        for arm, reference, cells in table.lines:
            slope = cells[0]
            if reference or slope is None or slope["low"] is None:
                continue
            if slope["low"] <= 0 <= slope["high"]:
                ways["shows no change"].append(arm)
            else:
                ways["gets better" if sign * slope["mean"] > 0 else "gets worse"].append(arm)
        count = sum(map(len, ways.values()))
        parts = [f"{way} for {_those(arms, count)}" for way, arms in ways.items() if arms]
        if parts:
            longest = f"{found.lengths[-1]} times the training's length"
            steps = table.setting.title(found.settings)
            return f"Over {longest}, at {steps}, {table.metric['name']} {listed(parts)} (95%)."
    return ""


def _those(arms: Sequence[str], count: int) -> str:
    """Some of `count` arms, by name where a sentence has room for them."""
    if len(arms) <= MOST_NAMED:
        return listed(arms)
    return f"all {count} arms" if len(arms) == count else f"{len(arms)} of {count} arms"
