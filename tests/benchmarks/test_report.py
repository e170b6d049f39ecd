from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import benchmarks
from benchmarks.evaluate.pictures import shown_videos
from benchmarks.report.build import write_report
from benchmarks.report.model.formats import decimals, number
from benchmarks.report.model.model import View
from benchmarks.report.sections.gallery import BUDGET, cards, sheet, videos_of
from benchmarks.report.sections.summary import answer, answer_lines
from benchmarks.report.sections.tables import latex
from benchmarks.stats.costs import OFF_BUDGET
from benchmarks.stats.model.schema import Results
from benchmarks.stats.results import build_results

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
FORMULA = r"=1+1 $\frac_{ | a & b"


#: Files of an older report that lies where one is written.
OF_BEFORE = ("index.html", "report.md", "tables/older.csv", "figures/older.svg")


def made(study: Any, **changes: Any) -> Results:
    return build_results(**{**vars(study), **changes}, resamples=100)


@pytest.fixture(scope="module")
def written(make_study: Callable[..., Any], tmp_path_factory: Any) -> tuple[Any, Results, Path]:
    study = make_study(nfes=(1, 4, 8), samplers=("sde", "ode"), failing={"cda": "loss is NaN"})
    results, folder = made(study), tmp_path_factory.mktemp("report")
    for name in OF_BEFORE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("of before")
    write_report(results, study.measured, folder, [("Drift", "One.\n\nTwo & more.")])
    return study, results, folder


@pytest.fixture(scope="module")
def hostile(make_study: Callable[..., Any], tmp_path_factory: Any) -> Path:
    """A report whose names, prompts and errors want to be code."""
    study = make_study(arms={IMAGE: 0.4, FORMULA: 0.2}, nfes=(1, 4), failing={SCRIPT: SCRIPT})
    study.prompts[:2] = [SCRIPT, IMAGE]
    study.study["title"] = study.study["description"] = SCRIPT
    study.provenance["</style><script>alert(2)</script>"] = {"</pre>": SCRIPT}
    study.costs[0].curve[0][SCRIPT] = 1.0
    folder = tmp_path_factory.mktemp("hostile")
    write_report(made(study), study.measured, folder, [(SCRIPT, SCRIPT)])
    return folder


def text_of(page: str) -> str:
    page = re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", page)))


def test_page_shows_everything_in_order(written: tuple[Any, Results, Path]) -> None:
    study, results, folder = written
    page = (folder / "index.html").read_text()
    text = text_of(page)
    places = [text.index(part) for part in (
        study.study["title"], "is distilling worth it?",
        f"of {results.comparisons_count} paired differences", "Directional hypotheses",
        "Side by side", "Frame by frame at 4 steps", "Quality against steps", "Training",
        "Cost of training", "Tables", "All comparisons", "Failures", "Drift", "Provenance",
    )]  # fmt: skip
    assert places == sorted(places)
    assert "✓ supported" in text and "✗ contradicted" in text
    assert "cda, seed 0, after 120 updates" in text and "loss is NaN" in text
    assert "Two & more." in text and "deadbeefdeadbeef" in text
    assert all(prompt in text for prompt in study.prompts)
    assert page.count("★") > 0 and len(page) < 4_000_000


def test_page_is_self_contained(written: tuple[Any, Results, Path]) -> None:
    page = (written[2] / "index.html").read_text()
    assert "default-src 'none'" in page and "<script" not in page
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert {link[:5] for link in outside if not link.startswith("#")} == {"data:"}
    # names of XML's vocabularies are no links
    assert set(re.findall(r"https?://[\w.]+", page)) <= {"http://www.w3.org"}


def test_every_video_is_there_once(written: tuple[Any, Results, Path]) -> None:
    study, _, folder = written
    page = (folder / "index.html").read_text()
    sheets = dict(re.findall(r"\.(v\d+_\w+) \{ --v: url\(data:image/png;base64,([^)]+)\)", page))
    # 8 prompts, 2 samplers, 3 numbers of steps of 4 arms and the naive teacher, 2 baselines
    assert len(sheets) == 8 * 2 * (3 * 5 + 2)
    assert set(sheets) == set(re.findall(r'class="(?:player|strip) (\S+)', page))
    item = next(i for i in study.measured if (i.arm, i.nfe, i.sampler) == ("dmd", 4, "sde"))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheets["v0_2_8_4"]))))
    assert (pixels == np.concatenate(list(item.pixels[2, 0]), axis=1)).all()


def test_sheets_of_large_colour_videos_are_small() -> None:
    video = np.random.default_rng(0).integers(0, 255, (3, 81, 240, 416), np.uint8)
    made = sheet(video)
    assert (made.frames, made.width, made.height) == (16, 166, 96)
    picture = Image.open(io.BytesIO(base64.b64decode(made.uri.partition(",")[2])))
    assert picture.format == "WEBP" and picture.size == (16 * 166, 96)


def test_videos_keep_their_budget(make_study: Callable[..., Any]) -> None:
    study = make_study(nfes=(1, 8), seeds=1)
    generator = np.random.default_rng(0)
    for item in study.measured:
        object.__setattr__(
            item, "pixels", generator.integers(0, 255, (3, 3, 8, 120, 160), np.uint8)
        )
    view = View(made(study))
    shown = cards(videos_of(shown_videos(study.measured), view.settings[0]), view, "v")
    assert shown
    assert sum(len(p.sheet.uri) for card in shown for p in card.players()) <= BUDGET


def test_markdown_and_figures(written: tuple[Any, Results, Path]) -> None:
    folder = written[2]
    text = (folder / "report.md").read_text()
    linked = re.findall(r"\]\(([^)]+)\)", text)
    assert "figures/videos.gif" in linked and "figures/quality-defect-sde-sampler.svg" in linked
    assert all((folder / link).is_file() for link in linked)
    assert Image.open(folder / "figures" / "videos.gif").n_frames == 9  # type: ignore[attr-defined]
    better = "sc-dmd-velocity better than consistency"
    assert f"| supported | {better} | defect (diagnostic) | 1 | sde | −" in text
    legend = "lower is better; a diagnostic, which selects no best arm"
    assert legend in text and legend in (folder / "index.html").read_text()
    svg = (folder / "figures" / "quality-defect-sde-sampler.svg").read_text()
    assert "var(--" not in svg and "sc-dmd-velocity" in svg


def test_tables(written: tuple[Any, Results, Path]) -> None:
    _, results, folder = written
    with open(folder / "tables" / "rigidity.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [row for row in results.rows if row.metric == "rigidity"]
    assert [float(row["mean"]) for row in rows] == [row.mean for row in wanted]
    with open(folder / "tables" / "comparisons.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(results.comparisons)
    tex = (folder / "tables" / "rigidity-sde-sampler.tex").read_text()
    assert r"\textbf{0." in tex and r"\multicolumn{3}{c}{0." in tex
    columns = {line.count("&") for line in tex.splitlines() if line.startswith(("dmd", "NFE"))}
    assert columns == {3}
    assert (folder / "tables" / "costs.csv").read_text().splitlines()[-1].startswith("cda")


def test_all_trainings_in_total(written: tuple[Any, Results, Path]) -> None:
    _, results, folder = written
    counts = [len(arm.seeds) for arm in results.arms]
    trained = zip(results.arms, counts, strict=True)
    updates = sum(arm.updates * count for arm, count in trained if count)
    sentence = f"{sum(counts)} trainings in total: {updates:,.0f} updates, "
    for name in ("index.html", "report.md"):
        assert sentence in (folder / name).read_text()


def test_an_arm_off_its_budget_is_named(make_study: Callable[..., Any], tmp_path: Path) -> None:
    """Where the difference is more than the page tolerates, either way, and there alone."""
    study = make_study(arms={"a": 0.4, "b": 0.6, "c": 0.5}, seeds=1, nfes=(1,), prompts=8)
    spent = {cost.arm: cost.flops for cost in study.costs}
    shares = {"a": 1.6, "b": 1 + 0.9 * OFF_BUDGET, "c": 1 - 1.1 * OFF_BUDGET}
    budgets = {arm: spent[arm] / shares[arm] for arm in spent}
    results = build_results(**vars(study), resamples=20, budgets=budgets)
    write_report(results, study.measured, tmp_path)
    told = (
        "Recorded FLOPs are more than 2% off the budget: a (+60.0%) and c (−2.2%); "
        "these trainings did not cost what they were given."
    )
    assert f"**{told}**" in (tmp_path / "report.md").read_text()
    assert f"<strong>{told}</strong>" in (tmp_path / "index.html").read_text()
    within = build_results(**vars(study), resamples=20, budgets=spent)
    assert View(within).off_budget() == ""


def test_an_author_reads_what_is_off_budget() -> None:
    page = (Path(benchmarks.__file__).parent / "README.md").read_text()
    assert f"more than {OFF_BUDGET:.0%} off" in " ".join(page.split())


def test_hostile_text_in_files(hostile: Path) -> None:
    page = (hostile / "index.html").read_text()
    assert "<script" not in page and "<img" not in page
    text = text_of(page)
    assert SCRIPT in text and IMAGE in text and FORMULA in text
    markdown = (hostile / "report.md").read_text()
    assert "<script" not in markdown and "<img" not in markdown
    assert "'=1+1" in (hostile / "tables" / "rigidity.csv").read_text()
    tex = (hostile / "tables" / "rigidity.tex").read_text()
    assert r"=1+1 \$\textbackslash{}frac\_\{ | a \& b" in tex


def test_nothing_stays_of_an_older_report(written: tuple[Any, Results, Path]) -> None:
    folder = written[2]
    assert not [path for path in folder.rglob("older.*")]
    assert "of before" not in {(folder / name).read_text() for name in ("index.html", "report.md")}


@pytest.mark.parametrize("arms", [{}, {"dmd": 0.3}, {"dmd": 0.3, "cda": 0.3}])
def test_small_studies(make_study: Callable[..., Any], tmp_path: Path, arms: dict) -> None:
    study = make_study(arms=arms or {"dmd": 0.3}, seeds=1, nfes=(2,))
    study.study["hypotheses"] = []
    measured = [item for item in study.measured if arms or item.seed is None]
    results = made(study, measured=measured, costs=study.costs if arms else [])
    write_report(results, measured, tmp_path)
    text = text_of((tmp_path / "index.html").read_text())
    assert ("trained once" in text) == bool(arms)
    assert "Directional hypotheses" not in text and "Failures" not in text
    if not arms:
        assert "nothing to compare" in text
    if len(arms) == 1:
        assert "only arm" in text and "teacher, 2 steps, sde: " in text


def test_guidance_and_a_metric_with_rollouts_of_its_own(
    make_study: Callable[..., Any], tmp_path: Path
) -> None:
    study = make_study(nfes=(1, 4))
    measured = []
    for item in study.measured:
        defect = item.rows.pop("defect", None)
        measured.append(item)
        if item.arm == "teacher-naive":
            passes = {"nfe": item.nfe, "guidance": item.nfe, "memory": 2 / 3}
            measured.append(
                replace(item, arm="teacher-guided", method="teacher-guided", passes=passes)
            )
        elif item.nfe == 4:  # no video was made for it
            measured.append(
                replace(item, nfe=8, rows={"defect": defect}, passes={}, pixels=item.pixels[:0])
            )
    metrics = [replace(m, own_steps=8) if m.name == "defect" else m for m in study.metrics]
    results = made(study, measured=measured, metrics=metrics)
    view = View(results)
    assert view.nfes == [1, 4]
    tables = {table.metric.name: table for table in view.tables()}
    assert tables["rigidity"].nfes == [1, 4] and tables["defect"].nfes == [8]
    guided = next(line for line in tables["rigidity"].lines if line.arm == "teacher-guided")
    assert guided.baseline
    wanted = "2× passes for guidance; +0.67 KV-cache-write passes"
    assert guided.extra_passes == wanted
    write_report(results, measured, tmp_path)
    text = text_of((tmp_path / "index.html").read_text())
    assert "Frame by frame at 4 steps" in text and wanted in text
    [card, *_] = cards(videos_of(shown_videos(measured), view.settings[0]), view, "v")
    assert card.nfes == [1, 4] and len(card.lines) == 6


def test_nothing_measured(make_study: Callable[..., Any], tmp_path: Path) -> None:
    """Every training failed, and the baselines could not be made."""
    study = make_study(arms={"dmd": 0.3}, seeds=1, nfes=(2,), failing={"dmd": "broken"})
    results = made(study, measured=[], costs=[cost for cost in study.costs if cost.error])
    write_report(results, [], tmp_path)
    assert "broken" in (tmp_path / "index.html").read_text()


def test_scores_that_are_no_numbers(make_study: Callable[..., Any], tmp_path: Path) -> None:
    study = make_study({"dmd": 0.42, "sc-dmd": 0.4}, nfes=(1,))
    for item in study.measured:
        if item.arm == "dmd":
            item.rows["frechet"][:] = np.nan
    results = made(study)
    write_report(results, study.measured, tmp_path)
    for name in ("index.html", "report.md"):
        text = text_of((tmp_path / name).read_text())
        assert "120 of 120 scores of dmd at 1 step (sde) in frechet" in text
    # nowhere as a number
    assert not re.search(
        r"\bnan\b", text_of((tmp_path / "report.md").read_text()).replace("(NaN", "")
    )


def test_answer_names_the_better_arm(make_study: Callable[..., Any]) -> None:
    study = make_study(arms={"poor": 0.9, "good": 0.1}, nfes=(1, 4))
    view = View(made(study))
    first, second = answer(view)
    assert first.startswith("By frechet (lower is better), distilling is worth it at ")
    counted = "of 18 paired differences in metrics of quality"
    assert re.match(rf"\d+ {counted} .*exclude zero at 95%, without adjustment", second)
    for line, steps in zip(answer_lines(view), ("1 step", "4 steps"), strict=True):
        assert line.steps == steps and line.best.startswith("good ") and line.runner_up == "poor"
        assert line.best_of_all == "yes" and line.p.startswith("p ")


def test_numbers() -> None:
    assert decimals([0.912, 0.87]) == 3 and decimals([120.0]) == 0 and decimals([]) == 2
    assert number(-0.5, 2) == "−0.50" and number(-0.0001, 2) == "0.00" and number(None, 2) == "–"


def test_latex_of_an_arm_without_an_entry(make_study: Callable[..., Any]) -> None:
    study = make_study(nfes=(1, 4))
    measured = [item for item in study.measured if (item.arm, item.nfe) != ("dmd", 4)]
    view = View(made(study, measured=measured))
    [line] = [row for row in latex(view.tables()[0]).splitlines() if row.startswith("dmd")]
    assert line.endswith(r"& -- \\")


def browse(page: Path, profile: Path) -> tuple[str, list[str], list[str]]:
    """The page's document after it has run, its console's lines and what it asked the net for."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("needs Chromium")
    log = profile / "net.json"
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", "--enable-logging=stderr", f"--log-net-log={log}",
            # nobody listens there, so that nothing leaves this machine
            "--proxy-server=http://127.0.0.1:1", "--proxy-bypass-list=<-loopback>",
            "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    requests = []
    for event in json.loads(log.read_text())["events"]:
        given = event.get("params") or {}
        # what the browser asks for on its own account (updates, the time) has no origin
        if given.get("initiator", "not an origin") != "not an origin" and "url" in given:
            requests.append(given["url"])
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console, requests


@pytest.mark.slow
def test_hostile_report_in_a_browser(hostile: Path, tmp_path: Path) -> None:
    page, console, requests = browse(hostile / "index.html", tmp_path)
    assert console == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
    assert "<script" not in page and "<img" not in page
    text = text_of(page)
    assert SCRIPT in text and IMAGE in text and FORMULA in text


@pytest.mark.slow
def test_the_browser_check_notices_what_it_looks_for(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>console.error('seen')</script><img src='http://example.invalid/a'>")
    _, console, requests = browse(page, tmp_path)
    assert console and "http://example.invalid/a" in requests
