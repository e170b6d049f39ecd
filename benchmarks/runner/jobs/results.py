"""The results of a study's jobs, read back from their folders."""

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
from benchmarks.runner.jobs.job import Job
from benchmarks.runner.jobs.record import training_of


def read_job(job: Job) -> tuple[list[EvalResult], TrainingCost | None]:
    """The results of a finished job, without the metrics that could not be measured."""
    results: list[EvalResult] = []
    for cell in job.cells:
        facts = cell.facts(job.folder) or {}
        if "absent" not in facts:
            for result in _read_cell(job, cell, facts):
                _merge(results, result)
    if job.seed is None:
        return results, None
    record = training_of(job.folder)
    cost = record["cost"]
    return results, TrainingCost(
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
    result = EvalResult(
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
                result,
                nfe=plan.own_steps,
                sampler=plan.own_sampler,
                rows={label: rows[label]},
                own_rollouts=(label,),
            )
            for label, plan in cell.metrics.items()
            if label in rows
        ]
    if cell.kind == "long":
        long = LongVideoResult(facts["frames"], facts["stops"], facts["ends"], rows, pixels)
        result = replace(result, long=long)
    else:
        result = replace(result, passes=facts["passes"], rows=rows, pixels=pixels)
    return [replace(result, sampler=sampler) for sampler in cell.samplers or (None,)]


def _merge(results: list[EvalResult], extra: EvalResult) -> None:
    """Add to the result of the same setting, or as one more: one for each setting."""
    for index, result in enumerate(results):
        if (result.nfe, result.sampler) == (extra.nfe, extra.sampler):
            results[index] = replace(
                result,
                rows={**result.rows, **extra.rows},
                long=extra.long or result.long,
                setting=result.setting or extra.setting,
                own_rollouts=(*result.own_rollouts, *extra.own_rollouts),
            )
            return
    results.append(extra)


def stamps_of(job: Job) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The different stamps of a done job's training (none for a baseline) and measuring."""
    trained = []
    if job.seed is not None:
        trained = [training_of(job.folder)["stamp"]]
    paths = [
        cell.folder(job.folder) / plan.file
        for cell in job.cells
        for plan in cell.metrics.values()
        if "absent" not in (cell.facts(job.folder) or {})
    ]
    texts = sorted({str(read_array(path, "stamp")) for path in paths if path.is_file()})
    return trained, [json.loads(text) for text in texts]
