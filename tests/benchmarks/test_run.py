"""`python -m benchmarks.run` from end to end, on the digits, with very short trainings."""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
from pathlib import Path

import numpy as np
import pandas
import pytest

from benchmarks.run import main
from benchmarks.runner import budget
from benchmarks.runner.workers import pool
from tests.benchmarks.without_workers import run_here
from tests.conftest import Ended

SMALL = [
    "--seeds", "1", "--nfe", "1,2",
    "--set", "match=updates",
    "--set", "base.training.updates=2",
    "--set", "base.training.batch_size=2",
    "--set", "evaluation.prompts=6",
    "--set", "evaluation.metrics=[digits-rigidity, digits-fd-motion]",
    "--set", "evaluation.teacher.steps=2",
    "--set", "workers=1",
]  # fmt: skip

#: Two random blocks in place of the four of `digits`.
SIZE = ["-p", "tests.sizes.plugin", "--set", "base.backbone.size=test-small"]

#: An autoregressive student of that size, and long videos of it.
LONG = [
    "-p", "tests.sizes.plugin",
    "--set", "base.backbone={name: self-forcing, size: test-small, "
    "memory: {name: window, frames: 6}}",
    "--set", "evaluation.long={lengths: [1, 2], nfe: [2], prompts: 4, metrics: [digits-rigidity, "
    "digits-fd, digits-fd-motion, semigroup-defect]}",
]  # fmt: skip

PLUGIN = textwrap.dedent(
    """
    from salt_zoo import hookimpl
    from salt_zoo.core.protocols import NetworkSpec

    class Interrupts:
        def __init__(self, config, zoo):
            raise KeyboardInterrupt

    class Fails:
        needs_data = False
        def __init__(self, config, zoo):
            pass
        def roles(self):
            return {"student": NetworkSpec("student", learning_rate=1e-4)}
        def update_order(self, index):
            return ["student"]
        def train(self, turn):
            raise RuntimeError("this method cannot work")

    @hookimpl
    def register(zoo):
        zoo.methods.add("fails", Fails, "a method that always fails")
        zoo.methods.add("interrupts", Interrupts, "a method that cannot be made")

    @hookimpl
    def report_sections(results, folder):
        return [("A section of a plugin", "with <b>markup</b>")]

    @hookimpl
    def study_finished(results, folder):
        (folder / "told.txt").write_text(str(len(results["rows"])))
    """
)


def files(arms: Path, *jobs: str) -> dict[Path, tuple[int, int]]:
    """Every file below the folders of some jobs, with what changes when it is written again."""
    found = [path for job in jobs for path in arms.glob(f"{job}/**/*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def here(tmp_path: Path, monkeypatch, capsys, one_zoo):
    """The command, and the jobs of its study, in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "run_tasks", run_here)

    def command(*arguments: str) -> Ended:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    """One study with two arms, one of which fails, long videos, and the plugin's hooks."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "fails.py").write_text(PLUGIN)
    options = ["--methods", "dmd,mine,never", "--set", "arms.mine.method.name=fails"]
    options += ["--set", "arms.never.method.name=interrupts", "-p", "fails.py"]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.chdir(folder)
        patch.setattr(pool, "run_tasks", run_here)
        code = main(["quick", "--out", "out", *SMALL, *LONG, *options])
    return folder, options, Ended(code, "", said.getvalue())


def test_a_failing_arm_is_a_row_and_the_rest_goes_on(study):
    folder, _, done = study
    assert done.code == 1, done.err
    assert "this method cannot work" in done.err and "Traceback" not in done.err
    results = json.loads((folder / "out" / "results.json").read_text())
    assert {row["arm"] for row in results["rows"]} >= {"dmd", "real", "teacher", "teacher-naive"}
    (failed,) = [arm for arm in results["arms"] if arm["arm"] == "mine"]
    assert "this method cannot work" in json.dumps(failed["errors"])
    (never,) = [arm for arm in results["arms"] if arm["arm"] == "never"]
    (error,) = never["errors"]
    assert error["error"].startswith("method 'interrupts' of plugin 'fails.py': cannot be made")
    assert f"failed: never: {error['error']}" in done.err.splitlines()
    assert "this method cannot work" in (folder / "out" / "index.html").read_text()


def test_what_a_study_writes(study):
    folder, _, _ = study
    out = folder / "out"
    results = json.loads((out / "results.json").read_text())
    assert results["schema"] == 3
    keys = {"method", "backbone", "memory", "nfe", "metric", "direction", "mean", "low", "high"}
    assert all(keys | {"seeds", "prompts"} <= set(row) for row in results["rows"])
    compared = {"a", "b", "backbone", "nfe", "metric", "difference", "low", "high"}
    assert all(compared <= set(row) for row in results["comparisons"])
    (dmd,) = [arm for arm in results["arms"] if arm["arm"] == "dmd"]
    assert dmd["updates"] == 2 and dmd["flops"] > 0 and dmd["passes"]["student"]["forward"] > 0
    facts = results["provenance"]
    assert facts["inputs"]["backbone"] and facts["versions"]["torch"]
    assert facts["configurations"]["dmd"]["method"]["name"] == "dmd"
    scores = pandas.read_parquet(out / "samples.parquet")
    one = scores[(scores.arm == "dmd") & (scores.nfe == 1) & (scores.metric == "digits-rigidity")]
    assert len(one) == len(results["prompts"]) == 12
    row = next(
        r for r in results["rows"]
        if (r["arm"], r["nfe"], r["metric"]) == ("dmd", 1, "digits-rigidity")
    )  # fmt: skip
    assert row["mean"] == pytest.approx(float(one.score.mean()), rel=1e-5)
    assert row["low"] <= row["mean"] <= row["high"]
    assert (out / "report.md").read_text().startswith("#")


def test_the_hooks_of_the_harness_are_called(study):
    folder, _, _ = study
    told = int((folder / "out" / "told.txt").read_text())
    assert told == len(json.loads((folder / "out" / "results.json").read_text())["rows"])
    page = (folder / "out" / "index.html").read_text()
    assert "A section of a plugin" in page
    assert "&lt;b&gt;markup&lt;/b&gt;" in page and "<b>markup</b>" not in page


def test_finished_arms_are_reused_and_others_do_not_disturb_them(study, here, monkeypatch):
    """And one that did not cost what it was to cost is warned of."""
    real = budget.budgets_of

    def half(*given):
        return {arm: flops / 2 for arm, flops in real(*given).items()}

    monkeypatch.setattr(budget, "budgets_of", half)
    folder, _, _ = study
    monkeypatch.chdir(folder)
    arms = folder / "out" / "arms"
    before = files(arms, "*")
    assert any(path.name == "trained.json" for path in before)
    old = json.loads((folder / "out" / "results.json").read_text())
    again = here("quick", "--out", "out", *SMALL, *LONG, "--methods", "dmd")
    assert again.code == 0, again.err
    told = "warning: Recorded FLOPs are more than 2% off the budget: dmd (+100.0%); "
    assert told in again.err
    assert files(arms, "*") == before
    new = json.loads((folder / "out" / "results.json").read_text())

    def of(results, arm):
        return [r["mean"] for r in results["rows"] if r["arm"] == arm]

    assert of(new, "dmd") == of(old, "dmd") and of(new, "teacher") == of(old, "teacher")
    assert new["drift"] == old["drift"]


def test_long_videos_of_an_autoregressive_student(study):
    out = study[0] / "out"
    drift = json.loads((out / "results.json").read_text())["drift"]
    # metrics of the whole video and those with rollouts of their own have no clips
    assert [metric["name"] for metric in drift["metrics"]] == ["digits-rigidity", "digits-fd"]
    curves = {(c["arm"], c["metric"]): c["points"] for c in drift["curves"]}
    assert ("teacher-naive", "digits-fd") not in curves  # it is bidirectional
    assert [point["stop"] for point in curves["dmd", "digits-rigidity"]] == [9, 12, 15, 18]
    assert {point["mean"] for point in curves["real", "digits-rigidity"]} == {0.0}
    # the clip of the training's length is the short video of the same prompt and noise
    (folder,) = (out / "arms").glob("dmd-seed0-*")
    (short,), (long,) = ((folder / "cells").glob(f"{kind}2-sde-*") for kind in ("", "long-"))
    assert json.loads((long / "cell.json").read_text())["ends"] == {"1": 0, "2": 3}
    videos = {cell: np.load(next(cell.glob("pixels-*.npz")))["pixels"] for cell in (short, long)}
    scores = {
        cell: np.load(next(cell.glob("digits-rigidity-*.npz")))["rows"] for cell in (short, long)
    }
    assert videos[long].shape == (2, 1, 18, 16, 16)
    assert (videos[long][:, :, :9] == videos[short][:2]).all()
    assert scores[long][0] == pytest.approx(scores[short][:4], abs=1e-6)
    assert "Over time" in (out / "index.html").read_text()


def test_a_dry_run_plans_and_writes_nothing(here, tmp_path: Path):
    done = here("quick", "--dry-run", "--methods", "consistency,sc-dmd", "--out", "out",
        "--set", "budget_of=sc-dmd", *SIZE)  # fmt: skip
    assert done.code == 0, done.err
    for word in (
        "consistency",
        "sc-dmd",
        "updates",
        "in all about",
        "measuring",
        "GiB",
        "nothing to download",
    ):
        assert word in done.out
    assert not (tmp_path / "out").exists()


def test_wan_without_weights_ends_with_one_line(here, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    done = here(
        "wan_t2v", "--out", "out", "--methods", "dmd", "--set", "primary_metric=null",
        "--set", "evaluation.metrics=[semigroup-defect, temporal-flickering]",
    )  # fmt: skip
    assert done.code == 2, done.out + done.err
    line = done.error  # on a slow machine a note says what the plan is busy with
    assert line.startswith("error: ") and "hf download" in line and "GB" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quik"], "did you mean 'quick'"),
        (["quick", "--methods", "dmmd"], "did you mean 'dmd'"),
        (["quick", "--nfe", "one"], "--nfe 'one'"),
        (["quick", "--seeds", "0"], "--seeds 0"),
        (["quick", "--set", "evaluation.metrics=[digits-fdd]"], "did you mean 'digits-fd'"),
        (["quick", "--set", "arms.dmd.method.name=dmdd", "--dry-run"], "unknown method 'dmdd'"),
        (["quick", "--set", "evaluation.long.nfe=[1]"], "'wan' is bidirectional"),
        (["quick", "--set", "evaluation.long.metrics=[digits-fdd]"], "did you mean 'digits-fd'"),
        (["quick", "--device", "tpu"], "--device tpu"),
        (["quick", "--out", "file/below"], "file/below"),
        (["quick", "-p", "absent.py"], "absent.py"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, said, here, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    ended = here(*arguments)
    assert ended.code == 2, ended.out + ended.err
    assert ended.error.startswith("error: ") and said in ended.error
    assert not (tmp_path / "reports").exists()
