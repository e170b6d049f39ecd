"""Reports of more arms than there are colours: a panel for each memory, a second lap of colours."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.build import write_report
from benchmarks.report.model.model import View
from benchmarks.report.sections.figures import quality_plot
from benchmarks.report.sections.style import SERIES
from benchmarks.report.sections.summary import answer
from benchmarks.stats.model.schema import Results
from benchmarks.stats.results import build_results

ARMS = {f"arm-{n}": 0.2 + 0.02 * n for n in range(len(SERIES) + 4)}
IN_WINDOW = list(ARMS)[-3:]


def remembering(item: Any) -> Any:
    return replace(item, memory="window-6-0") if item.arm in IN_WINDOW else item


@pytest.fixture(scope="module")
def many(make_study: Callable[..., Any]) -> Any:
    study = make_study(arms=ARMS, seeds=2, nfes=(1, 4), prompts=12, long=6)
    shown = [metric for metric in study.metrics if metric.name in ("accuracy", "rigidity")]
    measured = [remembering(item) for item in study.measured]
    return replace(study, measured=measured, metrics=shown, long_metrics=shown)


@pytest.fixture(scope="module")
def results(many: Any) -> Results:
    return build_results(**vars(many), resamples=50)


@pytest.fixture(scope="module")
def folder(many: Any, results: Results, tmp_path_factory: Any) -> Path:
    found: Path = tmp_path_factory.mktemp("many")
    write_report(results, many.measured, found)
    return found


def test_every_memory_has_a_panel(results: Results) -> None:
    full, window = View(results).panels(len(SERIES))
    assert (full.title, window.title) == ("memory full", "memory window-6-0")
    assert set(IN_WINDOW) <= window.arms and full.arms.isdisjoint(IN_WINDOW)
    assert set(ARMS) <= full.arms | window.arms
    assert {"real", "teacher"} <= full.arms & window.arms


def test_few_arms_share_one_panel(make_study: Callable[..., Any]) -> None:
    study = make_study(seeds=2, nfes=(4,), prompts=12)
    measured = [
        replace(item, memory="window-6-0") if item.arm == "dmd" else item for item in study.measured
    ]
    view = View(build_results(**vars(replace(study, measured=measured)), resamples=50))
    (panel,) = view.panels(len(SERIES))
    assert panel.title == "" and set(view.arms) <= panel.arms


@pytest.mark.parametrize("name", ["quality-accuracy", "drift-rigidity-4-steps"])
def test_plots_name_memories_and_all_arms(folder: Path, name: str) -> None:
    svg = (folder / "figures" / f"{name}.svg").read_text()
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert {"memory full", "memory window-6-0", *ARMS} <= set(texts)
    assert texts.count("arm-0") == 1 and texts.count("real") == 2


def test_what_a_logarithmic_scale_cannot_show_is_left_out(results: Results) -> None:
    rows = []
    for row in results.rows:  # a hundredfold between the arms; real data is at 0 already
        if row.metric == "rigidity" and row.arm in IN_WINDOW:
            changes = {key: getattr(row, key) / 100 for key in ("mean", "low", "high")}
            row = row.model_copy(update=changes)
        rows.append(row)
    view = View(results.model_copy(update={"rows": rows}))
    metric = view.metric("rigidity")
    svg = quality_plot(view, metric, view.settings[0])
    texts = re.findall(r">([^<>]+)</text>", svg or "")
    assert "real" not in texts and set(ARMS) <= set(texts) and "nan" not in (svg or "").lower()


def test_arms_of_one_colour_look_different(folder: Path) -> None:
    page = (folder / "index.html").read_text()
    legend = page[page.index('<ul class="legend">') :]
    dots = dict(re.findall(r"<li>(<i [^>]*></i>)(arm-\d+)</li>", legend))
    found = {arm: dot for dot, arm in dots.items()}
    assert len(found) == len(dots) == len(ARMS)
    assert 'class="dot"' in found["arm-0"] and 'class="dot ring"' in found["arm-8"]
    assert found["arm-0"].partition("style")[2] == found["arm-8"].partition("style")[2]


def test_the_answer_counts_many_arms(results: Results) -> None:
    sentences = answer(View(results))
    sentence = next(text for text in sentences if text.startswith("Over "))
    assert re.search(r"for (all 12|\d+ of 12) arms", sentence)
    assert "arm-0, arm-1, arm-2, arm-3, arm-4, arm-5" not in sentence


def test_a_metric_of_one_number_of_steps_has_dots(make_study: Callable[..., Any]) -> None:
    view = View(build_results(**vars(make_study(seeds=2, nfes=(4,), prompts=12)), resamples=50))
    svg = quality_plot(view, view.metrics[0], view.settings[0]) or ""
    texts = re.findall(r">([^<>]+)</text>", svg)
    names = ["consistency", "dmd", "sc-dmd", "sc-dmd-velocity", "teacher-naive"]
    names += ["teacher, 50 steps", "real"]
    assert [text for text in texts if text in names] == names
