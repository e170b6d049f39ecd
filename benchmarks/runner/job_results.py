"""What the jobs of a study have found, read back from their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.evaluate.cell_files import read_array
from benchmarks.evaluate.cells import Cell
from benchmarks.evaluate.evaluator import memory_label
from benchmarks.evaluate.records import EvalResult, LongVideoResult, TrainingCost
from benchmarks.runner.job_files import training_of
from benchmarks.runner.jobs import Job


def read_job(job: Job) -> tuple[list[EvalResult], TrainingCost | None]:
    """What a done job found, without the metrics that could not be measured."""
    found: list[EvalResult] = []
    for cell in job.cells:
        facts = cell.facts(job.folder) or {}
        if "absent" not in facts:
            for item in _read_cell(job, cell, facts):
                _merge(found, item)
    if job.seed is None:
        return found, None
    record = training_of(job)
    cost = record["cost"]
    return found, TrainingCost(
        arm=job.label,
        seed=job.seed,
        updates=cost["updates"],
        passes=cost["passes"],
        flops=cost["flops"],
        seconds=cost["seconds"],
        curve=record["curve"],
    )


def _read_cell(job: Job, cell: Cell, facts: Mapping[str, Any]) -> list[EvalResult]:
    folder, sampling = cell.folder(job.folder), cell.sampling
    pixels = np.zeros((0, 1, 1, 1, 1), np.uint8)
    if cell.shown:
        pixels = read_array(folder / cell.pixels, "pixels")
    rows = {
        label: read_array(folder / plan.file, "rows")
        for label, plan in cell.metrics.items()
        if (folder / plan.file).is_file()
    }
    content = job.content
    one = EvalResult(
        arm=job.label,
        method=job.label if job.seed is None else content["method"]["name"],
        backbone=content["backbone"]["name"],
        memory=memory_label(content["backbone"].get("memory")),
        seed=job.seed,
        nfe=sampling.steps if sampling else None,
        sampler=None,
        passes={},
        rows={},
        pixels=np.zeros((0, 1, 1, 1, 1), np.uint8),
        setting=cell.setting,
    )
    if cell.kind == "own":
        return [
            replace(
                one, nfe=m.own_steps, sampler=m.own_sampler, rows={k: rows[k]}, own_rollouts=(k,)
            )
            for k, m in cell.metrics.items()
            if k in rows
        ]
    if cell.kind == "long":
        one = replace(
            one, long=LongVideoResult(facts["frames"], facts["stops"], facts["ends"], rows, pixels)
        )
    else:
        one = replace(one, passes=facts["passes"], rows=rows, pixels=pixels)
    return [replace(one, sampler=sampler) for sampler in cell.samplers or (None,)]


def _merge(found: list[EvalResult], extra: EvalResult) -> None:
    """Add to the row of the same setting, or as a row of its own: one row for each setting."""
    for place, one in enumerate(found):
        if (one.nfe, one.sampler) == (extra.nfe, extra.sampler):
            found[place] = replace(
                one,
                rows={**one.rows, **extra.rows},
                long=extra.long or one.long,
                setting=one.setting or extra.setting,
                own_rollouts=(*one.own_rollouts, *extra.own_rollouts),
            )
            return
    found.append(extra)


def stamps_of(job: Job) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The different stamps of a done job's training (none for a baseline) and measuring."""
    trained = []
    if job.seed is not None:
        trained = [training_of(job)["stamp"]]
    paths = [
        cell.folder(job.folder) / plan.file
        for cell in job.cells
        for plan in cell.metrics.values()
        if "absent" not in (cell.facts(job.folder) or {})
    ]
    texts = sorted({str(read_array(path, "stamp")) for path in paths if path.is_file()})
    return trained, [json.loads(text) for text in texts]
