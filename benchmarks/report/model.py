"""What a report shows, arranged: arms in order, settings, tables of arms by NFE and of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.formats import decimals, in_steps
from benchmarks.study.baselines import FULL_REFERENCES, STEPPED_REFERENCES

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """Arms are compared under the same backbone and sampler."""

    backbone: str
    sampler: str

    def title(self, among: Sequence[Setting]) -> str:
        """What tells it from the other settings; empty where there is no other."""
        parts = []
        if len({setting.backbone for setting in among}) > 1:
            parts.append(self.backbone)
        if len({setting.sampler for setting in among}) > 1:
            parts.append(f"{self.sampler} sampler")
        return ", ".join(parts)


@dataclass(frozen=True)
class Line:
    """A row of a table: an arm's entries by NFE, or one entry for an arm without a choice of it."""

    label: str
    arm: str
    reference: bool
    cells: list[Entry | None]
    single: Entry | None = None

    @property
    def extra_passes(self) -> str:
        """What a video costs beside the NFE (guidance and writing the memory, shown apart), and a
        sampling setting that is the arm's own."""
        known = [entry for entry in [self.single, *self.cells] if entry]
        passes: Mapping[str, float] = known[0]["passes"] if known else {}
        parts = ["twice the passes, for guidance"] if passes.get("guidance") else []
        if memory := passes.get("memory"):
            one = "pass" if memory == 1 else "passes"
            parts.append(f"{memory:.2g} {one} over the video that write the memory")
        settings = dict.fromkeys(e["setting"] for e in known if e.get("setting"))
        parts += [f"sampled by its own setting: {text}" for text in settings]
        return " and ".join(parts)


@dataclass(frozen=True)
class Table:
    """A metric under one setting."""

    metric: Entry
    setting: Setting
    nfes: list[int]
    lines: list[Line]
    decimals: int


@dataclass(frozen=True)
class Pair:
    a: str
    b: str
    cells: list[Entry | None]


@dataclass(frozen=True)
class PairTable:
    """Differences of arms in a metric under one setting, by NFE."""

    metric: Entry
    setting: Setting
    nfes: list[int]
    pairs: list[Pair]
    decimals: int


@dataclass(frozen=True)
class Panel:
    """A part of a plot: the arms and references that are drawn in it."""

    title: str
    arms: frozenset[str]


class View:
    """results.json, looked at as a report needs it."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results
        rows: list[Entry] = results["rows"]
        trained = [row for row in rows if not row["reference"]]
        stepped = [row for row in rows if row["arm"] not in ("real", *FULL_REFERENCES)]
        failed = [arm["arm"] for arm in results["arms"]]
        #: Distilled arms, those without any result last.
        self.arms: list[str] = list(dict.fromkeys([row["arm"] for row in trained] + failed))
        self.measured_arms = list(dict.fromkeys(row["arm"] for row in trained))
        self.metrics: list[Entry] = results["metrics"]
        # a metric with rollouts of its own says nothing of the numbers of steps that are studied
        self._own = {m["name"] for m in self.metrics if m["own_steps"] is not None}
        chosen = [row for row in stepped if row["metric"] not in self._own]
        self.nfes = sorted({row["nfe"] for row in chosen})
        self.settings = list(
            dict.fromkeys(Setting(row["backbone"], row["sampler"]) for row in chosen or stepped)
        )
        # sde is how students are trained; ode beside it is a second look
        self.settings.sort(key=lambda setting: setting.sampler != "sde")
        self.seeds = max((row["seeds"] for row in trained), default=0)
        self._rows = {
            (row["metric"], row["arm"], row["backbone"], self._sampler(row), row["nfe"]): row
            for row in rows
        }

    def _sampler(self, entry: Entry) -> str | None:
        """The sampler that tells entries of a metric apart; its own rollouts have one way."""
        return None if entry["metric"] in self._own else entry["sampler"]

    def _steps(self, metric: str) -> list[int]:
        """The numbers of steps that a metric knows."""
        if metric not in self._own:
            return self.nfes
        return sorted({row["nfe"] for row in self.results["rows"] if row["metric"] == metric})

    def metric(self, name: str) -> Entry:
        """What results.json says of a metric."""
        drift = self.results["drift"]
        of_long = drift["metrics"] if drift else []
        return next(metric for metric in [*self.metrics, *of_long] if metric["name"] == name)

    def metric_of(self, outcome: Entry) -> Entry:
        """How the metric of an outcome is read: a slope has no target."""
        metric = self.metric(outcome["metric"])
        return {**metric, "better": "none"} if outcome["better"] == "none" else metric

    def not_finite(self) -> list[str]:
        """Rows with scores that are not finite, in words. A metric with rollouts of its own that
        has none for a network (of a memory, say) does not apply to it."""
        found = []
        for row in self.results["rows"]:
            applies = row["metric"] not in self._own or row["not_finite"] != row["scores"]
            if row["not_finite"] and applies:
                found.append(_broken(row, row["not_finite"], row["scores"], ""))
        drift = self.results["drift"]
        for curve in drift["curves"] if drift else ():
            points = [p for p in curve["points"] if p.get("not_finite")]
            if points:
                count, of = (sum(p[key] for p in points) for key in ("not_finite", "scores"))
                found.append(_broken(curve, count, of, f", {len(points)} clips of long videos"))
        return found

    def trained(self, times: int) -> list[str]:
        """The arms with so many training seeds."""
        seeds: dict[str, int] = {}
        for row in self.results["rows"]:
            if not row["reference"]:
                seeds[row["arm"]] = max(seeds.get(row["arm"], 0), row["seeds"])
        return [arm for arm, count in seeds.items() if count == times]

    def panels(self, most: int) -> list[Panel]:
        """One, or with more arms than `most` one for each memory. Real videos and networks without
        a memory are in all of them."""
        memories = {row["arm"]: row["memory"] for row in self.results["rows"]}
        kinds = dict.fromkeys(memories.get(arm) for arm in self.measured_arms)
        everywhere = {arm for arm in memories if arm in ("real", *FULL_REFERENCES)}
        everywhere |= {arm for arm, memory in memories.items() if memory is None}
        if len(self.arms) <= most or len(kinds) < 2:
            return [Panel("", frozenset([*memories, *self.arms]))]
        return [
            Panel(
                f"memory {kind}" if kind else "no memory",
                frozenset(everywhere | {arm for arm, memory in memories.items() if memory == kind}),
            )
            for kind in kinds
        ]

    @property
    def shown_nfe(self) -> int | None:
        """The number of steps that a single picture shows: 4, or the nearest."""
        return min(self.nfes, key=lambda nfe: abs(math.log2(nfe / 4)), default=None)

    def row(self, metric: str, arm: str, setting: Setting, nfe: int | None) -> Entry | None:
        sampler = None if metric in self._own else setting.sampler
        return self._rows.get((metric, arm, setting.backbone, sampler, nfe))

    def reference(self, metric: str, arm: str, setting: Setting) -> Entry | None:
        """The row of `real` or `teacher`, which have one way of sampling."""
        rows = [row for row in self.results["rows"] if (row["metric"], row["arm"]) == (metric, arm)]
        same = [row for row in rows if row["backbone"] == setting.backbone]
        # real videos and the teacher are every backbone's; a student's start is its own
        return next(iter(same or (rows if arm != "initial" else [])), None)

    def table(self, metric: Entry, setting: Setting) -> Table:
        name = metric["name"]
        steps = self._steps(name)
        found = {
            arm: {nfe: self.row(name, arm, setting, nfe) for nfe in steps}
            for arm in (*self.arms, *STEPPED_REFERENCES)
        }
        nfes = [nfe for nfe in steps if any(cells[nfe] for cells in found.values())]
        lines = [
            Line(arm, arm, arm in STEPPED_REFERENCES, [cells[nfe] for nfe in nfes])
            for arm, cells in found.items()
            if any(cells.values())
        ]
        for arm in (*FULL_REFERENCES, "real"):
            entry = self.reference(name, arm, setting)
            if entry:
                label = f"{arm}, {entry['nfe']} steps" if entry["nfe"] else arm
                lines.append(Line(label, arm, True, [], entry))
        means = [cell["mean"] for line in lines for cell in [line.single, *line.cells] if cell]
        return Table(metric, setting, nfes, lines, decimals(means))

    def pair_table(self, metric: Entry, setting: Setting) -> PairTable:
        pairs: dict[tuple[str, str], dict[int, Entry]] = {}
        for entry in self.results["comparisons"]:
            sampler = None if metric["name"] in self._own else setting.sampler
            here = (entry["metric"], entry["backbone"], self._sampler(entry))
            if here == (metric["name"], setting.backbone, sampler):
                pairs.setdefault((entry["a"], entry["b"]), {})[entry["nfe"]] = entry
        steps = self._steps(metric["name"])
        nfes = [nfe for nfe in steps if any(nfe in cells for cells in pairs.values())]
        lines = [Pair(a, b, [cells.get(n) for n in nfes]) for (a, b), cells in pairs.items()]
        differences = [cell["difference"] for line in lines for cell in line.cells if cell]
        return PairTable(metric, setting, nfes, lines, decimals(differences))

    def tables(self, settings: Sequence[Setting] | None = None) -> list[Table]:
        """Of every metric, under some settings or all."""
        made = [self.table(metric, s) for metric, s in self.shown_pairs(settings)]
        return [table for table in made if table.nfes]

    def pair_tables(self, settings: Sequence[Setting] | None = None) -> list[PairTable]:
        made = [self.pair_table(metric, s) for metric, s in self.shown_pairs(settings)]
        return [table for table in made if table.pairs]

    def shown_pairs(self, settings: Sequence[Setting] | None = None) -> list[tuple[Entry, Setting]]:
        """Metrics with the settings that they tell apart."""
        chosen = self.settings if settings is None else settings
        firsts = {s.backbone: s for s in reversed(self.settings)}.values()
        return [
            (metric, s)
            for metric in self.metrics
            for s in chosen
            if metric["name"] not in self._own or s in firsts
        ]

    def failed_references(self) -> dict[str, str]:
        """Why reference rows are missing, by their name."""
        found: dict[str, str] = self.results["provenance"].get("failed_references", {})
        return found

    def failed_metrics(self) -> dict[str, str]:
        """Why metrics have no numbers, or not all, by label."""
        found: dict[str, str] = self.results["provenance"].get("failed_metrics", {})
        return found

    def failures(self) -> list[tuple[str, Entry]]:
        return [(arm["arm"], error) for arm in self.results["arms"] for error in arm["errors"]]


def _broken(entry: Entry, count: int, of: int, what: str) -> str:
    where = f" at {in_steps(entry['nfe'])} ({entry['sampler']})" if entry["nfe"] else ""
    return f"{count} of {of} scores of {entry['arm']}{where} in {entry['metric']}{what}"
