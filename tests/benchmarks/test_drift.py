"""Quality over the length of videos: slopes, values at the end, comparisons, and their report."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from benchmarks.evaluate.records import LongVideoResult
from benchmarks.report.build import write_report
from benchmarks.report.model.model import View
from benchmarks.report.sections.drift import DriftView
from benchmarks.report.sections.gallery import sheet
from benchmarks.report.sections.summary import answer
from benchmarks.stats.drift import slopes
from benchmarks.stats.model.schema import Results
from benchmarks.stats.results import build_results
from benchmarks.stats.results_file import write_results

HYPOTHESES = [
    {"metric": "rigidity", "nfe": 4, "a": "sc-dmd-velocity", "b": "consistency", "slope": True},
    {"metric": "rigidity", "nfe": 4, "a": "consistency", "b": "sc-dmd-velocity", "length": 10},
    {"metric": "frechet", "nfe": 4, "a": "dmd", "b": "consistency", "slope": True},
    {"metric": "rigidity", "nfe": 4, "a": "dmd", "b": "consistency", "length": 2},
]


@pytest.fixture(scope="module")
def study(make_study: Callable[..., Any]) -> Any:
    made = make_study(nfes=(1, 4), long=40)
    made.study["hypotheses"] = made.study["hypotheses"][:1] + HYPOTHESES
    return made


@pytest.fixture(scope="module")
def results(study: Any) -> Results:
    return build_results(**vars(study), resamples=100)


@pytest.fixture(scope="module")
def written(study: Any, results: Results, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_results(results, study.measured, folder)
    write_report(results, study.measured, folder)
    return folder


def of(entries: Sequence[Any], **wanted: Any) -> Any:
    [found] = [e for e in entries if all(getattr(e, k) == value for k, value in wanted.items())]
    return found


def longs(study: Any, arm: str) -> list[LongVideoResult]:
    return [item.long for item in study.measured if item.arm == arm and item.long]


def test_a_slope_is_polyfits() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(7, 5)).astype(np.float32)
    stops = [9, 12, 15, 20, 21, 24, 40]  # not evenly spaced
    long = LongVideoResult(9, stops, {"1": 0}, {"m": scores}, np.zeros((0, 1, 40, 1, 1), np.uint8))
    wanted = np.polyfit(np.array(stops) / 9, scores, 1)[0]
    assert slopes(long, "m") == pytest.approx(wanted, rel=1e-6)
    # exactly none, or rounding of 1e-17 would be an interval that excludes zero
    for constant in (3, 0.1, 1):
        assert (slopes(replace(long, rows={"m": 0 * scores + constant}), "m") == 0).all()


def test_values_are_means_over_videos_and_seeds(make_study: Callable[..., Any]) -> None:
    """Of 24 videos, four prompts have two each: a mean over prompts is another one."""
    study = make_study({"dmd": 0.42}, seeds=2, nfes=(4,), prompts=24, long=24)
    results = build_results(**vars(study), resamples=20)
    values, arm = results.drift.values, {"arm": "dmd", "metric": "rigidity"}
    found = of(values, **arm, slope=True)
    wanted = np.mean([slopes(long, "rigidity") for long in longs(study, "dmd")])
    assert found.mean == pytest.approx(wanted, rel=1e-5) and found.low < found.mean
    assert (found.seeds, found.prompts, found.length) == (2, 20, None)
    for length, clip in ((1, 0), (4, 4), (10, 9)):
        found = of(values, **arm, length=length)
        wanted = np.mean([long.rows["rigidity"][clip] for long in longs(study, "dmd")])
        assert found.mean == pytest.approx(wanted, rel=1e-5)
    assert results.drift.lengths == [1, 4, 10]


def test_curves_go_through_every_clip(study: Any, results: Results) -> None:
    curve = of(results.drift.curves, arm="sc-dmd", metric="accuracy")
    assert [point.stop for point in curve.points] == [9, 12, 18, 27, 36, 45, 54, 63, 72, 90]
    assert curve.frames == 9 and curve.nfe == 4
    wanted = np.mean([long.rows["accuracy"][5] for long in longs(study, "sc-dmd")])
    assert curve.points[5].mean == pytest.approx(wanted, rel=1e-5)
    real = of(results.drift.curves, arm="real", metric="rigidity")
    assert real.baseline and real.nfe is None and len(real.points) == 10


def test_a_distance_has_a_curve_and_no_slope(results: Results) -> None:
    values = [v for v in results.drift.values if v.metric == "frechet"]
    assert values and not any(value.slope for value in values)
    assert of(results.drift.curves, arm="dmd", metric="frechet").points[9].mean > 0


def test_comparisons_are_counted(results: Results) -> None:
    found = results.drift.comparisons
    # every two of four arms and each with the naive teacher; slopes of two metrics, ends of three
    assert len(found) == 10 * (2 + 3 * 3)
    voting = [c for c in [*results.comparisons, *found] if c.metric != "defect"]
    assert results.comparisons_count == len(voting)
    assert results.comparisons_significant == sum(entry.significant for entry in voting)
    assert results.comparisons_by_chance == pytest.approx(0.05 * results.comparisons_count)
    pair = of(found, a="consistency", b="sc-dmd-velocity", metric="rigidity", slope=True)
    assert pair.difference > 0 and pair.better == "b" and pair.paired_by_seed


def test_hypotheses_about_time(results: Results) -> None:
    verdicts = [hypothesis.verdict for hypothesis in results.hypotheses]
    assert verdicts[1:] == ["supported", "contradicted", "not measured", "not measured"]


def test_without_long_videos_there_is_no_drift(make_study: Callable[..., Any]) -> None:
    study = make_study(nfes=(4,), seeds=1)
    study.study["hypotheses"] = HYPOTHESES[:1]
    results = build_results(**vars(study), resamples=100)
    assert results.drift is None and results.hypotheses[0].verdict == "not measured"


def test_every_score_of_every_clip_is_kept(study: Any, written: Path) -> None:
    table = pandas.read_parquet(written / "drift.parquet")
    some = table[(table.arm == "dmd") & (table.seed == 1) & (table.metric == "rigidity")]
    scores = some[some.stop == 36].sort_values("prompt_index").score.to_numpy()
    assert scores == pytest.approx(longs(study, "dmd")[1].rows["rigidity"][4])
    assert len(some) == 10 * 40 and "frechet" not in set(table.metric)


def test_the_report_has_a_section(study: Any, results: Results, written: Path) -> None:
    page = (written / "index.html").read_text()
    text = unescape(re.sub(r"<[^>]*>", "", re.sub(r"<style.*?</style>", "", page, flags=re.S)))
    assert "Over time" in text and "at the end of 10× the training length" in text
    assert "by the slope over long videos" in text
    assert "<script" not in page and "default-src 'none'" in page
    plots = DriftView(View(results), results.drift).plots()
    assert {metric for metric, _ in plots} == {"frechet", "accuracy", "rigidity"}
    # two prompts of four arms, the naive teacher and real videos, each a player and a strip
    sheets = dict(re.findall(r"\.([lf]\d_\d) \{ --v: url\(data:(image/png);", page))
    assert len(sheets) == 2 * 6 * 2
    assert set(sheets) == set(re.findall(r'class="(?:player|strip) ([lf]\S+)', page))
    assert page.count('class="film"') == 12 and "--at: 0.125" in page  # 2 of 16 frames
    sentence = next(
        s for s in answer(View(results)) if s.startswith("Over 10× the training length")
    )
    assert "gets worse for" in sentence and "sc-dmd-velocity" in sentence


def test_markdown_and_tables(results: Results, written: Path) -> None:
    text = (written / "report.md").read_text()
    linked = re.findall(r"\]\(([^)]+)\)", text)
    assert "figures/drift-rigidity-4-steps.svg" in linked
    assert all((written / link).is_file() for link in linked)
    assert "| length | slope | 1× | 4× | 10× |" in text and "| length | 1× | 4× | 10× |" in text
    with open(written / "tables" / "drift-rigidity.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [v for v in results.drift.values if v.metric == "rigidity"]
    assert [float(row["mean"]) for row in rows] == [value.mean for value in wanted]
    with open(written / "tables" / "drift-curves.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * 10 * 6
    tex = (written / "tables" / "drift-rigidity.tex").read_text()
    assert r"length & slope & 1$\times$ & 4$\times$ & 10$\times$ \\" in tex


def test_a_long_sheet_fits_its_format() -> None:
    video = np.random.default_rng(0).integers(0, 255, (3, 300, 60, 104), np.uint8)
    made = sheet(video, 64, 300)
    assert made.frames * made.width <= 16_000 and made.frames > 100
    picture = Image.open(io.BytesIO(base64.b64decode(made.uri.partition(",")[2])))
    assert picture.size == (made.frames * made.width, made.height)
