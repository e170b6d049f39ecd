"""Metrics that cannot be used: each costs a line and its own numbers, never those of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluate.records import EvalResult
from benchmarks.study.metric_info import MetricInfo, metric_infos
from benchmarks.study.schema import StudyConfig
from salt_zoo.config.metrics import chosen
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.printing import say_once
from salt_zoo.plugin.isolation.foreign import ForeignError, show_traceback
from salt_zoo.plugin.manager import Zoo

#: By label why a metric has no numbers, or fewer.
Broken = dict[str, str]


def without_broken(study: StudyConfig, zoo: Zoo, where: str) -> tuple[StudyConfig, Broken]:
    """The study with the metrics that can be used, and why others cannot.

    Raises:
        ZooError: none is left.
    """
    broken: Broken = {}

    def usable(metrics: Sequence[str | Mapping[str, Any]]) -> list[Any]:
        kept = []
        for metric in metrics:
            try:
                metric_infos(zoo, [metric])
            except ForeignError as error:
                show_traceback(error)
                broken[chosen(metric).label] = str(error)
                continue
            except ZooError:
                pass  # it lacks what can be installed, which is said where it is needed
            kept.append(metric)
        return kept

    evaluation = study.evaluation
    changed: dict[str, Any] = {"metrics": usable(evaluation.metrics)}
    if evaluation.long and evaluation.long.metrics is not None:
        of_long = usable(evaluation.long.metrics)
        changed["long"] = (
            evaluation.long.model_copy(update={"metrics": of_long}) if of_long else None
        )
    if not broken:
        return study, broken
    if not changed["metrics"]:
        raise ZooError(
            f"{where}: evaluation.metrics: none can be used; {next(iter(broken.values()))}"
        )
    for line in broken.values():
        say_once(f"{line}; the study continues without it")
    if evaluation.long and changed.get("long", True) is None:
        say_once(f"{where}: evaluation.long: without a metric there are no long videos")
    return (
        study.model_copy(update={"evaluation": evaluation.model_copy(update=changed)}),
        broken,
    )


def guarded_infos(infos: Sequence[MetricInfo], broken: Broken) -> list[MetricInfo]:
    """The metrics with a `reduce` that says NaN where the metric's own fails; the first failure of
    each goes to `broken`."""
    return [_guarded(info, broken) for info in infos]


def _guarded(info: MetricInfo, broken: Broken) -> MetricInfo:
    def note(line: str) -> None:
        if info.name not in broken:
            broken[info.name] = line

    def guard(reduce: Callable[[Tensor], Any], what: str) -> Callable[[Tensor], Any]:
        def guarded(rows: Tensor) -> Any:
            try:
                found = reduce(rows)
            except ForeignError as error:
                show_traceback(error)
                note(str(error))
                return torch.full(rows.shape[:1], torch.nan) if what == "reduce_many" else np.nan
            finite = torch.isfinite(torch.as_tensor(found)).all()
            if not finite and torch.isfinite(rows).all():
                note(f"metric {info.name!r}: {what}() is not finite for scores that are")
            return found

        return guarded

    many = info.reduce_many
    return replace(
        info,
        reduce=guard(info.reduce, "reduce"),
        reduce_many=None if many is None else guard(many, "reduce_many"),
    )


def of_one_form(measured: Sequence[EvalResult], broken: Broken) -> list[EvalResult]:
    """What was measured without metrics whose rows differ in width between networks, which cannot
    be compared."""
    widths: dict[str, set[tuple[int, ...]]] = {}
    for one in measured:
        for rows in (one.rows, *([one.long.rows] if one.long else ())):
            skipped = 1 if rows is one.rows else 2
            for label, scores in rows.items():
                widths.setdefault(label, set()).add(scores.shape[skipped:])
    wrong = [label for label, found in widths.items() if len(found) > 1]
    for label in wrong:
        broken.setdefault(
            label,
            f"metric {label!r}: its rows are of different widths, "
            f"{' and '.join(str(list(width)) for width in sorted(widths[label]))}",
        )
    return [_without(one, wrong) for one in measured] if wrong else list(measured)


def _without(one: EvalResult, labels: Sequence[str]) -> EvalResult:
    long = one.long and replace(one.long, rows=_but(one.long.rows, labels))
    return replace(one, rows=_but(one.rows, labels), long=long)


def _but(rows: Mapping[str, np.ndarray], labels: Sequence[str]) -> dict[str, np.ndarray]:
    return {label: scores for label, scores in rows.items() if label not in labels}


def together(found: Mapping[Path, Mapping[str, str]]) -> Broken:
    """By label why metrics could not be measured, and in which jobs; `found` is by their folder."""
    where: dict[tuple[str, str], list[str]] = {}
    for folder, lines in found.items():
        for label, line in lines.items():
            where.setdefault((label, line), []).append(folder.name.rpartition("-")[0])
    broken: Broken = {}
    for (label, line), names in where.items():
        text = f"{line} (not measured: {', '.join(names)})"
        broken[label] = f"{broken[label]}; {text}" if label in broken else text
    return broken
