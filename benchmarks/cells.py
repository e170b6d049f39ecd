"""The cells of a study: which videos of a network are measured by what, and the files they become.

A cell is one sampling setting of one network (or real videos, or a network's own rollouts, or long
videos). Its folder is named by what decides the videos, a file in it by what decides the scores: a
new metric measures only itself, a new number of steps samples only itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.records import FULL_REFERENCES
from benchmarks.study import EvaluationConfig
from salt_zoo.plugins import Zoo
from salt_zoo.run import make_metrics
from salt_zoo.sampling import SamplingConfig
from salt_zoo.storage import digest
from salt_zoo.versions import Versions

#: Raised whenever measuring would find other numbers in the same videos.
MEASURING_VERSION = 1

FACTS = "cell.json"


@dataclass(frozen=True)
class MetricPlan:
    """A metric with its options, as a job carries it to a worker.

    `key` names its options and the version of its code. `own_steps` and `own_sampler` say how it
    makes rollouts of its own, if it does; `clips` whether it can score clips of longer videos.
    """

    name: str
    options: Mapping[str, Any]
    key: str
    own_steps: int | None = None
    own_sampler: str = "sde"
    clips: bool = True

    @property
    def file(self) -> str:
        return f"{self.name}-{self.key}.npz"


def plan_metrics(names: Iterable[str], zoo: Zoo, versions: Versions) -> dict[str, MetricPlan]:
    """The metrics of a study by label."""
    plans = {}
    for name, metric in make_metrics(zoo, list(names)).items():
        options = zoo.metrics.configure(name, {}, f"metric {name}").model_dump(mode="json")
        key = digest([name, options, versions.of(zoo.metrics[name])])
        plans[name] = MetricPlan(
            name,
            options,
            key,
            metric.own_steps,
            getattr(metric, "own_sampler", "sde"),
            metric.own_steps is None and not getattr(metric, "whole_video", False),
        )
    return plans


@dataclass(frozen=True)
class Cell:
    """Videos of one network, or real ones, and what they are measured by.

    Attributes:
        kind: `videos` of the training's length, `long` ones, or a network's `own` rollouts, which
            its metrics make themselves.
        sampling: how the videos are made; None for real ones and for own rollouts.
        lengths: of long videos, see `LongConfig`.
        shown: how many of the videos are kept for the report.
        metrics: by label.
    """

    kind: Literal["videos", "own", "long"]
    split: str
    prompts: int
    videos_per_prompt: int
    sampling: SamplingConfig | None
    metrics: Mapping[str, MetricPlan]
    shown: int = 0
    lengths: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder: readable first, then a digest of all that decides the videos."""
        sampling = self.sampling.model_dump(mode="json") if self.sampling else {}
        key = digest(
            [
                MEASURING_VERSION,
                self.kind,
                self.split,
                self.prompts,
                self.videos_per_prompt,
                # a setting that is off was not there before it was invented
                {name: value for name, value in sampling.items() if value is not None},
                list(self.lengths),
            ]
        )
        made = f"{self.sampling.steps}-{self.sampling.sampler}" if self.sampling else ""
        parts = [self.kind if self.kind != "videos" or not made else "", made, key]
        return "-".join(part for part in parts if part)

    @property
    def pixels(self) -> str:
        """The file of the videos that are shown."""
        return f"pixels-{self.shown}.npz"

    def folder(self, of_job: Path) -> Path:
        return of_job / "cells" / self.name

    def facts(self, of_job: Path) -> dict[str, Any] | None:
        """What is known of the videos, once they were made: `passes`, and of long ones where their
        clips lie; `absent` says why there are none. None before."""
        path = self.folder(of_job) / FACTS
        if not path.is_file():
            return None
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return facts

    def missing(self, of_job: Path) -> list[str]:
        """The files that are wanted and not there."""
        facts, folder = self.facts(of_job), self.folder(of_job)
        if facts and "absent" in facts:
            return []
        wanted = [FACTS, *([self.pixels] if self.shown else [])]
        wanted += dict.fromkeys(metric.file for metric in self.metrics.values())
        return [name for name in wanted if not (folder / name).is_file()]


def plan_cells(
    label: str,
    evaluation: EvaluationConfig,
    metrics: Mapping[str, MetricPlan],
    long_metrics: Mapping[str, MetricPlan],
) -> tuple[Cell, ...]:
    """The cells of an arm, or of the reference row `label`."""
    plan = _Plan(evaluation, metrics, long_metrics)
    teacher = evaluation.teacher
    if label == "real":
        return (plan.videos(None), *plan.long([None]))
    if label in FULL_REFERENCES:
        return (plan.videos(plan.sampling(teacher.steps, "ode", teacher.guidance_scale)),)
    if label in ("teacher-guided", "initial-guided"):
        return plan.grid(teacher.guidance_scale)
    return (*plan.grid(1.0), *plan.own())


@dataclass(frozen=True)
class _Plan:
    evaluation: EvaluationConfig
    metrics: Mapping[str, MetricPlan]
    long_metrics: Mapping[str, MetricPlan]

    def sampling(self, steps: int, sampler: Any, guidance_scale: float) -> SamplingConfig:
        return SamplingConfig(
            steps=steps,
            sampler=sampler,
            timestep_shift=self.evaluation.timestep_shift,
            guidance_scale=guidance_scale,
        )

    def grid(self, guidance_scale: float) -> tuple[Cell, ...]:
        """Every number of steps with every sampler, and long videos."""
        short = [
            self.videos(self.sampling(steps, sampler, guidance_scale))
            for steps in self.evaluation.nfe
            for sampler in self.evaluation.samplers
        ]
        long = self.evaluation.long
        settings = (
            [self.sampling(n, long.sampler, guidance_scale) for n in long.nfe] if long else []
        )
        return (*short, *self.long(settings))

    def videos(self, sampling: SamplingConfig | None) -> Cell:
        wanted = {k: m for k, m in self.metrics.items() if m.own_steps is None}
        return self._cell("videos", sampling, wanted, self.evaluation.shown)

    def own(self) -> list[Cell]:
        """What does not depend on how the videos are made."""
        wanted = {k: m for k, m in self.metrics.items() if m.own_steps is not None}
        return [self._cell("own", None, wanted)] if wanted else []

    def long(self, settings: Sequence[SamplingConfig | None]) -> list[Cell]:
        long = self.evaluation.long
        if long is None:
            return []
        wanted = {k: m for k, m in self.long_metrics.items() if m.clips}
        split, lengths = self.evaluation.split, tuple(sorted(long.lengths))
        return [
            Cell(
                "long",
                split,
                long.prompts,
                long.videos_per_prompt,
                one,
                wanted,
                long.shown,
                lengths,
            )
            for one in settings
        ]

    def _cell(
        self,
        kind: Literal["videos", "own", "long"],
        sampling: SamplingConfig | None,
        metrics: Mapping[str, MetricPlan],
        shown: int = 0,
    ) -> Cell:
        evaluation = self.evaluation
        return Cell(
            kind,
            evaluation.split,
            evaluation.prompts,
            evaluation.videos_per_prompt,
            sampling,
            metrics,
            shown,
        )
