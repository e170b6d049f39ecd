"""What it takes to measure a study, before anything is measured: FLOPs of the networks' passes.

Only passes are counted: not the decoding of videos, nor the networks of metrics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.evaluate.cells import Cell, MetricPlan, plan_cells
from benchmarks.runner.runner import baselines_of, make_backbone, network_baselines
from benchmarks.study.schema import StudyConfig
from salt_zoo.config.metrics import configure_metrics
from salt_zoo.config.run import Resolved
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.methods.roles import source
from salt_zoo.core.protocols import Start
from salt_zoo.costs.counter import Pass
from salt_zoo.costs.flops import flops_of_pass
from salt_zoo.plugin.isolation.checked_metric import make_metric
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.generate import SamplingConfig

#: A metric that makes rollouts of its own compares them with something: passes for each step.
_OWN = 2


def evaluation_flops(
    study: StudyConfig, runs: Mapping[str, Resolved], zoo: Zoo
) -> tuple[dict[str, float], dict[str, float]]:
    """FLOPs of measuring one network: of each arm at one seed (with the quality that is measured
    while it trains), and of each baseline. Long videos are taken to cost their multiple."""
    evaluation = study.evaluation
    metrics = _metrics(evaluation.metrics, zoo)
    long = _metrics((evaluation.long and evaluation.long.metrics) or evaluation.metrics, zoo)
    arms = {}
    for label, run in runs.items():
        cells = plan_cells(label, evaluation, metrics, long, study.arm_evaluation(label))
        backbone = make_backbone(run, zoo)
        arms[label] = _flops(backbone, "student", cells) + _while_training(backbone, run)
    baselines: dict[str, float] = {}
    firsts: dict[str, Resolved] = {}
    for run in runs.values():
        firsts.setdefault(run.config.backbone["name"], run)
    for run in firsts.values():
        backbone = make_backbone(run, zoo)
        for name in _baselines(run, zoo, evaluation.split):
            if name not in baselines:
                start: Start = "teacher" if name.startswith("teacher") else "student"
                cells = plan_cells(name, evaluation, metrics, long)
                baselines[name] = 0.0 if name == "real" else _flops(backbone, start, cells)
    return arms, baselines


def _baselines(run: Resolved, zoo: Zoo, split: str) -> list[str]:
    try:
        return baselines_of(run, zoo, split)
    except ZooError:  # data that is yet to be made, of which `check_data` has warned
        return network_baselines(run, zoo)


def _metrics(metrics: Sequence[str | Mapping[str, Any]], zoo: Zoo) -> dict[str, MetricPlan]:
    """The metrics as cells have them. One whose packages are missing here makes no rollouts."""
    plans = {}
    for label, (chosen, config) in configure_metrics(zoo, metrics).items():
        own_steps = None
        with contextlib.suppress(ZooError):
            own_steps = make_metric(chosen.name, config, zoo).own_steps
        plans[label] = MetricPlan(chosen.name, {}, "", own_steps)
    return plans


def _flops(backbone: Any, start: Start, cells: tuple[Cell, ...]) -> float:
    return sum(
        cell.prompts * cell.videos_per_prompt * _of_a_video(backbone, start, cell) for cell in cells
    )


def _of_a_video(backbone: Any, start: Start, cell: Cell) -> float:
    if cell.kind == "own":
        steps = sum(metric.own_steps or 0 for metric in cell.metrics.values())
        return _generating(backbone, start, SamplingConfig(steps=_OWN * steps))
    assert cell.sampling is not None
    if cell.kind == "long" and source(backbone, start).blocks().frames is None:
        return 0.0  # what is made at once cannot be made longer
    return max(cell.lengths, default=1) * _generating(backbone, start, cell.sampling)


def _generating(backbone: Any, start: Start, sampling: SamplingConfig) -> float:
    """FLOPs of one video of the training's length."""
    blocks, frames = source(backbone, start).blocks(), backbone.latent_shape[1]
    kind = Pass(frames if blocks.new_memory is None else None)
    forward, _ = flops_of_pass(backbone, start, kind)
    return forward * sum(sampling.passes(blocks, frames).values())


def _while_training(backbone: Any, run: Resolved) -> float:
    """Quality during a training."""
    quality = run.config.quality
    if not quality.every:
        return 0.0
    settings = [
        SamplingConfig(steps=steps, guidance_scale=quality.guidance_scale)
        for steps in quality.steps
    ]
    videos = run.config.training.updates // quality.every * quality.prompts
    return videos * sum(_generating(backbone, "student", one) for one in settings)
