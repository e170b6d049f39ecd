"""The cells of a study: which videos of a network are measured by what, and the files they become.

A cell is one sampling setting of one network (or real videos, or a network's own rollouts, or long
videos). Its folder is named by what decides the videos, a file in it by what decides the scores: a
new metric measures only itself, a new number of steps samples only itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.evaluate.cell_files import FACTS, fault, read_facts
from benchmarks.study.entries.arm_evaluation import ArmEvaluation
from benchmarks.study.entries.baselines import FULL_BASELINES
from benchmarks.study.schema import EvaluationConfig
from salt_zoo.config.metrics import configure_metrics
from salt_zoo.core.networks.blocks import Sampler
from salt_zoo.io.files.seals import Damaged
from salt_zoo.io.files.storage import digest
from salt_zoo.plugin.isolation.checked_metric import make_metric
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.options.option_files import option_files
from salt_zoo.plugin.versions import Versions
from salt_zoo.rollout.generate import SamplingConfig

#: Raised whenever measuring would find other numbers in the same videos.
MEASURING_VERSION = 1


@dataclass(frozen=True)
class MetricPlan:
    """A metric with its options, as a job carries it to a worker.

    `key` names its options, the files that they name, and the versions of its code and data.
    `own_steps` and `own_sampler` say how it
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


def plan_metrics(
    metrics: Sequence[str | Mapping[str, Any]], zoo: Zoo, versions: Versions
) -> dict[str, MetricPlan]:
    """The metrics of a study by label."""
    plans = {}
    for label, (chosen, config) in configure_metrics(zoo, metrics).items():
        metric: Any = make_metric(chosen.name, config, zoo)
        options = config.model_dump(mode="json")
        decides = [chosen.name, options, versions.of(zoo.metrics[chosen.name])]
        if files := option_files(config):
            decides.append(files)
        plans[label] = MetricPlan(
            chosen.name,
            options,
            digest(decides),
            metric.own_steps,
            metric.own_sampler,
            metric.has_clips,
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
        samplers: those of the study under which it stands in comparisons; more than one where the
            arm has a sampler of its own.
        setting: what of the sampling is the arm's own, in words.
    """

    kind: Literal["videos", "own", "long"]
    split: str
    prompts: int
    videos_per_prompt: int
    sampling: SamplingConfig | None
    metrics: Mapping[str, MetricPlan]
    shown: int = 0
    lengths: tuple[int, ...] = ()
    samplers: tuple[Sampler, ...] = ()
    setting: str | None = None

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
        clips lie; `absent` says why there are none. None before, and where it is damaged."""
        try:
            return read_facts(self.folder(of_job))
        except Damaged:
            return None

    def missing(self, of_job: Path) -> list[str]:
        """The files that are wanted and not there, or not as they were written."""
        facts, folder = self.facts(of_job), self.folder(of_job)
        if facts and "absent" in facts:
            return []
        wanted = [FACTS, *([self.pixels] if self.shown else [])]
        wanted += dict.fromkeys(metric.file for metric in self.metrics.values())
        lost = [FACTS] if facts is None else []
        return lost + [name for name in wanted if name != FACTS and fault(folder / name)]

    def damaged(self, of_job: Path) -> list[Damaged]:
        """The files that are there and not as they were written."""
        folder = self.folder(of_job)
        found: list[Damaged] = []
        try:
            read_facts(folder)
        except Damaged as damage:
            found.append(damage)
        names = dict.fromkeys(metric.file for metric in self.metrics.values())
        for path in (folder / name for name in (*names, self.pixels)):
            if os.path.lexists(path) and (why := fault(path)):
                found.append(Damaged(path, why))
        return found


def plan_cells(
    label: str,
    evaluation: EvaluationConfig,
    metrics: Mapping[str, MetricPlan],
    long_metrics: Mapping[str, MetricPlan],
    own: ArmEvaluation | None = None,
) -> tuple[Cell, ...]:
    """The cells of the baseline `label`, or with `own` settings those of an arm."""
    plan = _Plan(evaluation, metrics, long_metrics, own or ArmEvaluation())
    teacher = evaluation.teacher
    if own is None and label == "real":
        return (plan.videos(None), *plan.long([None]))
    if own is None and label in FULL_BASELINES:
        return (plan.videos(plan.sampling(teacher.steps, "ode", teacher.guidance_scale)),)
    if own is None and label.endswith("-guided"):
        return plan.grid(teacher.guidance_scale)
    return (*plan.grid(1.0), *plan.own_rollouts())


@dataclass(frozen=True)
class _Plan:
    evaluation: EvaluationConfig
    metrics: Mapping[str, MetricPlan]
    long_metrics: Mapping[str, MetricPlan]
    own: ArmEvaluation = field(default_factory=ArmEvaluation)

    def sampling(self, steps: int, sampler: Sampler, guidance_scale: float) -> SamplingConfig:
        """A setting of the study."""
        return SamplingConfig(
            steps=steps,
            sampler=sampler,
            timestep_shift=self.evaluation.timestep_shift,
            guidance_scale=guidance_scale,
        )

    def grid(self, guidance_scale: float) -> tuple[Cell, ...]:
        """Every number of steps with every sampler, and long videos."""
        samplers = tuple(self.evaluation.samplers)
        # with a sampler of its own an arm has one setting, which stands under each of the study's
        groups = [samplers] if self.own.sampler else [(sampler,) for sampler in samplers]
        short = [
            self.videos(self.sampling(steps, group[0], guidance_scale), group)
            for steps in self.evaluation.nfe
            for group in groups
        ]
        long = self.evaluation.long
        settings = (
            [self.sampling(n, long.sampler, guidance_scale) for n in long.nfe] if long else []
        )
        return (*short, *self.long(settings))

    def videos(
        self, sampling: SamplingConfig | None, samplers: tuple[Sampler, ...] | None = None
    ) -> Cell:
        wanted = {k: m for k, m in self.metrics.items() if m.own_steps is None}
        return self._cell("videos", sampling, wanted, self.evaluation.shown, samplers)

    def own_rollouts(self) -> list[Cell]:
        """What does not depend on how the videos are made."""
        wanted = {k: m for k, m in self.metrics.items() if m.own_steps is not None}
        return [self._cell("own", None, wanted)] if wanted else []

    def long(self, settings: Sequence[SamplingConfig | None]) -> list[Cell]:
        long = self.evaluation.long
        if long is None:
            return []
        wanted = {k: m for k, m in self.long_metrics.items() if m.clips}
        cells = [self._cell("long", sampling, wanted, long.shown) for sampling in settings]
        return [
            replace(
                cell,
                prompts=long.prompts,
                videos_per_prompt=long.videos_per_prompt,
                lengths=tuple(sorted(long.lengths)),
            )
            for cell in cells
        ]

    def _cell(
        self,
        kind: Literal["videos", "own", "long"],
        sampling: SamplingConfig | None,
        metrics: Mapping[str, MetricPlan],
        shown: int = 0,
        samplers: tuple[Sampler, ...] | None = None,
    ) -> Cell:
        evaluation = self.evaluation
        return Cell(
            kind,
            evaluation.split,
            evaluation.prompts,
            evaluation.videos_per_prompt,
            self.own.of(sampling) if sampling else None,
            metrics,
            shown,
            samplers=samplers or ((sampling.sampler,) if sampling else ()),
            setting=self.own.text(sampling.steps) if sampling else None,
        )
