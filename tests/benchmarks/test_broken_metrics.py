"""A broken metric is a line and has no numbers; every other one has its own, and the report says
why."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.evaluate.broken_metrics import guarded_infos, of_one_form, together, without_broken
from benchmarks.evaluate.records import EvalResult
from benchmarks.runner.arms import plan_runs
from benchmarks.runner.jobs.execution import run_job
from benchmarks.runner.runner import collect, few, make_jobs, write
from benchmarks.stats.intervals.arm_scores import group_scores
from benchmarks.stats.intervals.bootstrap import Bootstrap
from benchmarks.stats.results import build_results
from benchmarks.study.metric_info import MetricInfo
from benchmarks.study.schema import load_study
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.isolation.foreign import ForeignError
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.plugin.registration.registry import merge
from tests.benchmarks import planned_jobs

PLUGIN = textwrap.dedent(
    """
    import torch
    from salt_zoo import hookimpl

    class Sound:
        direction, own_steps = "higher", None
        def __init__(self, config, zoo): pass
        def measure(self, videos): return videos.pixels.flatten(1).mean(1)
        def reduce(self, rows): return float(rows.mean())

    class Raises(Sound):
        def measure(self, videos): raise SystemExit("metric bug")

    class Short(Sound):
        def measure(self, videos): return torch.zeros(1)

    class Reduces(Sound):
        def reduce(self, rows): raise RuntimeError("reduce bug")

    class Sideways(Sound):
        direction = "sideways"

    class Mute(Sound):
        def __init__(self, config, zoo): raise RuntimeError("init bug")

    @hookimpl
    def register(zoo):
        for part in (Sound, Raises, Short, Reduces, Sideways, Mute):
            zoo.metrics.add(part.__name__.lower(), part, "a metric")
    """
)
NAMES = ["sound", "raises", "short", "reduces", "sideways", "mute"]
STUDY = merge(planned_jobs.STUDY, {"evaluation": {"metrics": NAMES}})


def test_a_study_goes_on_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "mine.py").write_text(PLUGIN)
    zoo = load_zoo([planned_jobs.SIZES, str(tmp_path / "mine.py")])
    study, broken = without_broken(load_study(STUDY, "mini.yaml"), zoo, "mini.yaml")
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 2
    assert "'sideways'" in warned[0] and "direction is 'sideways'" in warned[0]
    assert "'mute'" in warned[1] and "init bug" in warned[1]
    assert study.evaluation.metrics == ["sound", "raises", "short", "reduces"]

    runs, _ = plan_runs(study, zoo, "mini.yaml")
    jobs = make_jobs(study, runs, zoo, tmp_path / "out")
    found = {job.folder: run_job(job, zoo, "cpu", lambda *progress: None) for job in jobs}
    assert all(set(lines) == {"raises", "short"} for lines in found.values())
    without = {**broken, **together(found)}
    assert "SystemExit: metric bug" in without["raises"] and "a-seed0" in without["raises"]

    results, measured = collect(study, runs, jobs, {}, zoo, "cpu", (), {}, without)
    write(results, measured, zoo, tmp_path / "out", {})
    rows = {(row.arm, row.metric): row.mean for row in results.rows}
    assert rows["a", "sound"] is not None
    assert {metric for _, metric in rows} == {"sound", "reduces"}
    assert all(mean is None for (_, metric), mean in rows.items() if metric == "reduces")
    for name in ("index.html", "report.md"):
        text = (tmp_path / "out" / name).read_text()
        for line in ("metric bug", "reduce bug", "direction is", "init bug"):
            assert line in text, name
        assert str(tmp_path) not in text  # nor where the plugin lies


def test_none_that_can_be_used_is_an_error(tmp_path: Path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    zoo = load_zoo([planned_jobs.SIZES, str(tmp_path / "mine.py")])
    evaluation = {**STUDY["evaluation"], "metrics": ["sideways"]}
    study = load_study({**STUDY, "evaluation": evaluation}, "mini.yaml")
    with pytest.raises(ZooError, match=r"^mini.yaml: evaluation.metrics: none can be used"):
        without_broken(study, zoo, "mini.yaml")


def measured(arm: str, seed: int, **rows: np.ndarray) -> EvalResult:
    pixels = np.zeros((0, 1, 1, 1, 1), np.uint8)
    return EvalResult(arm, "dmd", "toy", None, seed, 1, "sde", {}, rows, pixels)


def test_no_seed_stands_for_one_that_was_not_measured():
    metric = MetricInfo("m", "higher", "", lambda rows: float(rows.mean()), mean=True)
    items = [measured("a", 0, m=np.ones(3)), measured("a", 1)]
    [cell] = group_scores(items, [metric], Bootstrap(["a", "b", "c"], 10))
    assert cell.replicates["m"].not_finite == 3
    assert not np.isfinite(cell.replicates["m"].values.mean())


def test_features_of_different_widths_are_named():
    items = [measured("a", 0, m=np.ones((3, 2)), k=np.ones(3)), measured("b", 0, m=np.ones((3, 4)))]
    broken: dict[str, str] = {}
    assert [list(one.rows) for one in of_one_form(items, broken)] == [["k"], []]
    assert broken == {"m": "metric 'm': its rows are of different widths, [2] and [4]"}


def test_a_terminal_is_not_told_of_every_row():
    rows = [f"row {place}" for place in range(12)]
    assert few(rows[:4]) == rows[:4]
    assert few(rows) == [*rows[:4], "8 more, see the report"]


def test_a_number_that_is_not_finite_for_scores_that_are_is_told():
    def nothing(rows: Any) -> float:
        return float("nan")

    def fails(rows: Any) -> float:
        raise ForeignError("metric 'k': reduce bug")

    broken: dict[str, str] = {}
    infos = [MetricInfo("m", "higher", "", nothing), MetricInfo("k", "higher", "", fails)]
    prompts = ["a", "b", "c"]
    items = [measured("a", seed, m=np.ones(3), k=np.ones(3)) for seed in (0, 1)]
    study = {"name": "made"}
    infos = guarded_infos(infos, broken)
    results = build_results(study, items, [], infos, prompts, {}, resamples=10)
    assert [row.mean for row in results.rows] == [None, None]
    assert broken["k"] == "metric 'k': reduce bug"
    assert "not finite" in broken["m"]
