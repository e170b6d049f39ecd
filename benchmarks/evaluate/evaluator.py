"""Scoring one network, or real videos, on a study's prompts and noise: a cell at a time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluate.cell_files import FACTS, write_arrays, write_facts
from benchmarks.evaluate.cells import Cell, MetricPlan
from benchmarks.evaluate.long_video import LongMeasurer
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.first_frame import of_prompts
from salt_zoo.core.protocols import Backbone, Dataset
from salt_zoo.costs.counter import PassCounter
from salt_zoo.evaluation.videos import (
    Videos,
    evaluation_draws,
    evaluation_prompts,
    make_videos,
    measure,
)
from salt_zoo.plugin.isolation.checked_metric import CheckedMetric, make_metric
from salt_zoo.plugin.isolation.foreign import ForeignError, show_traceback
from salt_zoo.rollout.generate import SamplingConfig


class Measurer:
    """Measures what is missing of cells, with the same prompts and noise for every network.

    Args:
        network: None for real videos.
        folder: of the job; every file is written at once and whole, so that what a killed study
            has measured is kept.
        stamp: what is recorded in every file of the code and the machine.
    """

    def __init__(
        self,
        network: Any,
        backbone: Backbone,
        dataset: Dataset,
        zoo: Any,
        batch_size: int,
        folder: Path,
        stamp: Mapping[str, Any],
    ) -> None:
        self.network, self.backbone, self.dataset, self.zoo = network, backbone, dataset, zoo
        self.batch_size, self.folder, self.stamp = batch_size, folder, stamp
        #: Metrics that could not be measured, by label, each with a line that says why.
        self.broken: dict[str, str] = {}
        self._made: dict[str, CheckedMetric] = {}

    def fill(self, cell: Cell) -> None:
        """Make the videos of `cell` once more, and write the files that it lacks."""
        missing = cell.missing(self.folder)
        if not missing:
            return
        wanted = {k: m for k, m in cell.metrics.items() if m.file in missing}
        if cell.kind == "long":
            self._long(cell, wanted, missing)
            return
        if cell.kind == "own":
            prompts, rng = self._rows(cell)
            nothing = torch.zeros(0, 1, 1, 1, 1)
            images = of_prompts(self.backbone, self.dataset, prompts, rng, cell.split)
            videos = Videos(
                nothing, prompts, rng, self.dataset, self.backbone, self.network, images=images
            )
            facts: dict[str, Any] = {}
        elif cell.sampling is None:
            videos, facts = self._real(cell), {"passes": {}}
        else:
            videos, passes = self._sampled(cell, cell.sampling)
            facts = {"passes": passes}
        self._facts(cell, missing, facts)
        if cell.pixels in missing:
            shown = videos.pixels[: cell.shown].clamp(0, 1)
            self._write(cell, cell.pixels, {"pixels": _uint8(shown)})
        for label, plan in wanted.items():
            try:
                rows = measure({label: self._metric(plan)}, videos)[label]
            except ForeignError as error:  # others can be measured
                show_traceback(error)
                self.broken[label] = str(error)
                continue
            self._write(cell, plan.file, {"rows": rows.numpy()})

    def _rows(self, cell: Cell) -> tuple[list[str], Any]:
        """The cell's prompts and their draws."""
        prompts = evaluation_prompts(self.dataset, cell.split, cell.prompts, cell.videos_per_prompt)
        return prompts, evaluation_draws(0, cell.split, len(prompts), self.backbone.device)

    def _real(self, cell: Cell) -> Videos:
        """Real videos of the same prompts."""
        prompts, rng = self._rows(cell)
        pixels = self.dataset.real(prompts, rng.at("real"), cell.split)
        if pixels is None:
            raise ZooError("the dataset has no real videos to compare with")
        return Videos(pixels, prompts, rng, self.dataset)

    def _sampled(self, cell: Cell, sampling: SamplingConfig) -> tuple[Videos, dict[str, float]]:
        """The network's videos, and the passes that one of them took."""
        prompts, rng = self._rows(cell)
        with counted(self.network, self.backbone.latent_shape[1]) as counter:
            videos = make_videos(
                self.network,
                self.backbone,
                self.dataset,
                prompts,
                rng,
                sampling,
                self.batch_size,
                split=cell.split,
            )
        passes = counter.counts["network"]["forward"] / len(prompts)
        guidance = sampling.steps if sampling.guidance_scale != 1 else 0
        memory = round(passes - sampling.steps - guidance, 9)
        return videos, {"nfe": sampling.steps, "guidance": guidance, "memory": memory}

    def _long(self, cell: Cell, wanted: Mapping[str, MetricPlan], missing: list[str]) -> None:
        if self.network is not None and self.backbone.blocks(self.network).frames is None:
            self._facts(cell, missing, {"absent": "the network makes all frames at once"})
            return
        metrics = {}
        for label, plan in wanted.items():
            try:
                metrics[label] = self._metric(plan)
            except ForeignError as error:
                show_traceback(error)
                self.broken[label] = str(error)
        measurer = LongMeasurer(
            cell,
            cell.split,
            metrics,
            self.dataset,
            self.backbone,
            self.batch_size,
        )
        if cell.sampling is None:
            found = measurer.real()
        else:
            found = measurer.sampled(self.network, cell.sampling)
        if found is None:
            self._facts(cell, missing, {"absent": "the data has no real videos that are so long"})
            return
        known = {"frames": found.frames, "stops": found.stops, "ends": found.ends}
        self._facts(cell, missing, known)
        if cell.pixels in missing:
            self._write(cell, cell.pixels, {"pixels": found.pixels})
        self.broken |= measurer.broken
        for label, plan in wanted.items():
            if label in found.rows:
                self._write(cell, plan.file, {"rows": found.rows[label]})

    def _metric(self, plan: MetricPlan) -> CheckedMetric:
        """The metric itself; one that loads weights does so once for all cells."""
        if plan.file not in self._made:
            options = self.zoo.metrics.configure(
                plan.name, dict(plan.options), f"metric {plan.name}"
            )
            self._made[plan.file] = make_metric(plan.name, options, self.zoo)
        return self._made[plan.file]

    def _facts(self, cell: Cell, missing: list[str], facts: Mapping[str, Any]) -> None:
        if FACTS in missing:
            write_facts(cell.folder(self.folder), facts)

    def _write(self, cell: Cell, name: str, arrays: Mapping[str, Any]) -> None:
        stamp = np.array(json.dumps(self.stamp))
        write_arrays(cell.folder(self.folder), name, {"stamp": stamp, **arrays})


@contextlib.contextmanager
def counted(network: Any, frames: int) -> Iterator[PassCounter]:
    """Counts the passes of `network` inside the block, in videos of `frames` latent frames."""
    counter = PassCounter({"network": network}, frames)
    try:
        yield counter
    finally:
        counter.remove()


def _uint8(pixels: Tensor) -> np.ndarray:
    return np.asarray(pixels * 255 + 0.5).astype(np.uint8)


def memory_label(memory: Any) -> str | None:
    """A memory's name with its numbers, as in `window-9-3`, for tables; None without one."""
    if memory is None:
        return None
    sizes = [str(memory[key]) for key in ("frames", "sink") if key in memory]
    return "-".join([str(memory["name"]), *sizes])
