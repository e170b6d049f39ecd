"""What a report says of long videos, on hand-made curves in which a careless sentence would be
wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.evaluate.records import EvalResult, LongVideoResult
from benchmarks.report.model.model import View
from benchmarks.report.sections.drift import sentence
from benchmarks.stats.model.schema import Results
from benchmarks.stats.results import build_results
from tests.benchmarks.test_answer import ERROR, PROMPTS, one

CORRECT = replace(ERROR, name="class", direction="higher", bounds=(0.0, 1.0))
STOPS = list(range(9, 46, 9))
FALLS = {"falls": -0.1}


def long_of(arm: str, seed: int, change: float, spread: float, level: float) -> EvalResult:
    """Scores that change by so much a clip; without spread they are `level` or 0 by video."""
    generator = np.random.default_rng([seed, len(arm)])
    start = level * (np.arange(len(PROMPTS)) % 2)
    rows = start + change * np.arange(len(STOPS))[:, None]
    rows = (rows + spread * generator.normal(size=rows.shape)).astype(np.float32)
    ends = {"1": 0, "5": len(STOPS) - 1}
    long = LongVideoResult(9, STOPS, ends, {"class": rows}, np.zeros((0, 1, 1, 1, 1), np.uint8))
    return replace(one(arm, seed, 4, {"class": rows[0]}), long=long)


def study(
    changes: dict[str, float], seeds: int = 3, still: tuple[str, ...] = (), **more: Any
) -> Results:
    measured = [
        long_of(arm, seed, change, 0.0 if arm in still else 0.01, 0.7)
        for arm, change in changes.items()
        for seed in range(seeds)
    ]
    content = {"name": "made", "title": "Made", "description": "", "hypotheses": [], **more}
    return build_results(content, measured, [], [CORRECT], PROMPTS, {}, 200, [CORRECT], PROMPTS)


def test_constant_scores_have_no_slope() -> None:
    """The rounding of a least-squares fit is not evidence: 1e-17 would exclude zero."""
    stated = [{"a": "a", "b": "b", "metric": "class", "nfe": 4, "slope": True}]
    results = study({"a": 0.0, "b": 0.0}, still=("a", "b"), hypotheses=stated)
    assert results.drift is not None
    slopes = [row for row in results.drift.values if row.slope]
    assert [row.mean for row in slopes] == [0, 0] and not any(row.winner for row in slopes)
    [hypothesis] = results.hypotheses
    assert hypothesis.verdict == "inconclusive"
    assert sentence(View(results)) == ""


def test_an_arm_without_an_interval_is_counted() -> None:
    arms = {f"arm-of-number-{i}".replace("-", "."): -0.1 for i in range(6)}
    text = sentence(View(study({**arms, "still": 0.0}, still=("still",))))
    assert "gets worse for 6 of 7 arms and has no interval for still" in text
    assert "all 6" not in text and "not adjusted for the number of arms" in text
    every = sentence(View(study(arms)))
    assert "gets worse for all 6 arms (95%" in every


def test_one_training_shows_no_drift() -> None:
    assert sentence(View(study(FALLS, seeds=1))) == ""
    assert "gets worse for falls" in sentence(View(study(FALLS)))
