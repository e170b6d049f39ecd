"""What a report says over its numbers, on hand-made results in which a careless sentence would be
wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.evaluate.records import EvalResult, TrainingCost
from benchmarks.report.build import write_report
from benchmarks.report.model.model import View
from benchmarks.report.sections.summary import answer, answer_lines, tuning
from benchmarks.stats.answer import check_primary
from benchmarks.stats.model.entries import MetricEntry
from benchmarks.stats.model.schema import Results
from benchmarks.stats.results import build_results
from benchmarks.study.entries.tuning import Tuning
from benchmarks.study.metric_info import MetricInfo
from salt_zoo.core.base.errors import MissingPackage, ZooError
from salt_zoo.plugin.isolation.checked_metric import CheckedMetric
from salt_zoo.plugin.isolation.metric_reading import direction_words

PROMPTS = [f"prompt {i}" for i in range(40)]
NOISE = np.random.default_rng(0)


def mean(rows: torch.Tensor) -> float:
    return float(rows.mean())


SHARP = MetricInfo("sharp", "target", "sharpness over real", mean, target=1.0, mean=True)
ERROR = MetricInfo("error", "lower", "what is wrong", mean, mean=True)
DEFECT = MetricInfo("defect", "lower", "a diagnostic", mean, kind="diagnostic", mean=True)
MOTION = MetricInfo("motion", "none", "a description", mean, kind="description", mean=True)


def scores(size: float, spread: float = 0.01) -> np.ndarray:
    return (size + spread * NOISE.normal(size=len(PROMPTS))).astype(np.float32)


def one(arm: str, seed: int | None, nfe: int, rows: dict[str, Any], **more: Any) -> EvalResult:
    guided = arm.endswith("guided")
    passes = {"nfe": nfe, "guidance": nfe if guided else 0, "memory": 0}
    method = "dmd" if seed is not None else arm
    facts = {"backbone": "wan", "memory": None, "sampler": "sde", **more}
    pixels = np.zeros((1, 1, 2, 8, 8), np.uint8)
    return EvalResult(
        arm, method, seed=seed, nfe=nfe, passes=passes, rows=rows, pixels=pixels, **facts
    )


def study(
    sizes: dict[str, dict[str, float]],
    metrics: list[MetricInfo],
    seeds: int = 5,
    nfe: int = 4,
    spread: float = 0.01,
    extra: tuple[EvalResult, ...] = (),
    **more: Any,
) -> Results:
    """Results of arms (and undistilled networks) with scores of the given sizes at one NFE."""
    measured = [
        one(arm, seed, nfe, {name: scores(size, spread) for name, size in by_metric.items()})
        for arm, by_metric in sizes.items()
        for seed in ([None] if "-" in arm else range(seeds))
    ]
    costs = [
        TrainingCost(arm, seed, 100, {"student": {"forward": 1.0, "backward": 1.0}}, 2e12, 60.0)
        for arm in sizes
        if "-" not in arm
        for seed in range(seeds)
    ]
    content = {"name": "made", "title": "Made", "description": "", "hypotheses": [], **more}
    return build_results(content, [*measured, *extra], costs, metrics, PROMPTS, {}, 200)


def said(results: Results, folder: Path) -> tuple[str, str]:
    """The text of both pages."""
    write_report(results, [], folder)
    page = (folder / "index.html").read_text()
    page = re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    page = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", page)))
    return page, (folder / "report.md").read_text()


def test_the_best_of_a_target_is_the_nearest(tmp_path: Path) -> None:
    """1.55 is not better than 1.04 because it is higher."""
    results = study({"over": {"sharp": 1.55}, "near": {"sharp": 1.04}}, [SHARP])
    [line] = answer_lines(View(results))
    assert line.best.startswith("near ") and line.runner_up == "over"
    [pair] = results.comparisons
    assert (pair.a, pair.better) == ("over", "b") and pair.difference > 0.4
    assert [row.arm for row in results.rows if row.winner] == ["near"]
    page, text = said(results, tmp_path)
    for shown in (page, text):
        assert "closest to 1 is best" in shown and "higher is better" not in shown
        # 0.04 - 0.55, which is no difference of the two means
        assert "Differences in sharp are those of the distances to the target." in shown


def test_a_diagnostic_and_a_description_select_no_arm(tmp_path: Path) -> None:
    sizes = {
        "still": {"defect": 0.0, "motion": 0.9, "error": 0.5},
        "good": {"defect": 0.3, "motion": 0.1, "error": 0.2},
    }
    results = study(sizes, [DEFECT, MOTION, ERROR])
    assert {row.metric for row in results.rows if row.winner} == {"error"}
    assert results.comparisons_count == results.comparisons_significant == 1
    assert results.answer.metric == "error"
    [line] = answer_lines(View(results))
    assert line.best.startswith("good ")
    motion = next(entry for entry in results.comparisons if entry.metric == "motion")
    assert motion.significant and motion.better is None
    page, text = said(results, tmp_path)
    assert "motion is better" not in page + text and "leads" not in page + text


@pytest.mark.parametrize(
    ("undistilled", "worth"), [(0.3, "yes"), (0.1, "no"), (0.2, "inconclusive")]
)
def test_distilling_is_compared_with_not_distilling(
    undistilled: float, worth: str, tmp_path: Path
) -> None:
    sizes = {"good": {"error": 0.2}, "bad": {"error": 0.4}, "teacher-naive": {"error": undistilled}}
    results = study(sizes, [ERROR])
    [row] = results.answer.rows
    assert row.worth == worth and row.best == "good"
    first = answer(View(results))[0]
    words = {
        "yes": "distilling is worth it at 4 steps",
        "no": "distilling is not worth it at 4 steps",
        "inconclusive": "it is inconclusive whether distilling is worth it at 4 steps",
    }
    assert words[worth] in first
    assert all(words[worth] in shown for shown in said(results, tmp_path))


def test_guidance_at_half_the_steps_takes_as_many_passes() -> None:
    """Guided at 2 steps has the passes of 4 steps, and is better: distilling is not worth it."""
    sizes = {"good": {"error": 0.2}, "teacher-naive": {"error": 0.5}}
    guided = [one("teacher-guided", None, n, {"error": scores(e)}) for n, e in ((2, 0.1), (4, 0.0))]
    [row] = study(sizes, [ERROR], extra=tuple(guided)).answer.rows
    assert [(cell.arm, cell.nfe) for cell in row.undistilled] == [
        ("teacher-naive", 4),
        ("teacher-guided", 2),
    ]
    assert [cell.verdict for cell in row.undistilled] == ["better", "worse"]
    assert row.worth == "no"


def test_the_undistilled_network_may_choose_its_sampler() -> None:
    sizes = {"good": {"error": 0.2}, "teacher-naive": {"error": 0.5}}
    ode = one("teacher-naive", None, 4, {"error": scores(0.1)}, sampler="ode")
    [row] = study(sizes, [ERROR], extra=(ode,)).answer.rows
    assert row.worth == "no" and [c.sampler for c in row.undistilled] == ["sde", "ode"]


def test_a_causal_student_is_compared_with_its_own_start() -> None:
    sizes = {
        "good": {"error": 0.2},
        "teacher-naive": {"error": 0.1},
        "initial-naive": {"error": 0.5},
    }
    [row] = study(sizes, [ERROR]).answer.rows
    assert [cell.arm for cell in row.undistilled] == ["initial-naive"]
    assert row.worth == "yes"
    # the teacher is better: nothing is said of undistilled networks in general
    text = " ".join(answer(View(study(sizes, [ERROR]))))
    assert "better than its undistilled network in every measured setting" in text
    assert "every undistilled network" not in text


def test_an_undistilled_network_of_another_memory_is_named() -> None:
    """It is measured once, with the options of the first arm."""
    made = [one("good", s, 4, {"error": scores(0.2)}, memory="window of 6") for s in range(3)]
    made.append(one("initial-naive", None, 4, {"error": scores(0.5)}, memory="full"))
    [line] = answer_lines(View(study({}, [ERROR], extra=tuple(made))))
    [cell] = line.undistilled
    assert cell.startswith("initial student, memory full, 4 steps, sde: ")


def test_a_tie_has_no_winner(tmp_path: Path) -> None:
    results = study({"a": {"error": 0.3}, "b": {"error": 0.3}}, [ERROR], spread=0.1)
    [row] = results.answer.rows
    assert row.verdict == "inconclusive" and not any(r.winner for r in results.rows)
    assert answer_lines(View(results))[0].best_of_all == "inconclusive"
    page, text = said(results, tmp_path)
    assert "★ " not in page.split("★ marks")[0] and "| yes (p" not in text


def test_the_best_arm_must_beat_every_other() -> None:
    """Far ahead of the last, but not of the runner-up."""
    sizes = {"a": {"error": 0.30}, "b": {"error": 0.301}, "c": {"error": 0.9}}
    [row] = study(sizes, [ERROR], spread=0.1).answer.rows
    assert row.verdict == "inconclusive" and row.runner_up in ("a", "b")


def test_one_seed_is_an_illustration(tmp_path: Path) -> None:
    """However far apart: no verdict, no winner, nothing that is significant."""
    stated = [{"a": "a", "b": "b", "metric": "error", "nfe": 4, "sampler": "sde"}]
    sizes = {"a": {"error": 0.1}, "b": {"error": 0.5}, "teacher-naive": {"error": 0.9}}
    results = study(sizes, [ERROR], seeds=1, hypotheses=stated)
    view = View(results)
    assert any("an illustration, not evidence" in sentence for sentence in answer(view))
    [row] = results.answer.rows
    assert row.worth == row.verdict == "inconclusive" and row.difference < -0.3
    [line] = answer_lines(view)
    assert line.worth == line.best_of_all == "inconclusive (one training)" and not line.p
    assert not any(row.winner for row in results.rows)
    assert all(entry.p is None and not entry.significant for entry in results.comparisons)
    assert all(entry.low is not None for entry in results.comparisons)
    [hypothesis] = results.hypotheses
    assert hypothesis.verdict == "inconclusive" and hypothesis.p_holm is None
    for shown in said(results, tmp_path):
        assert (
            "is worth it at 4 steps (" not in shown and "exclude zero at 95%, without" not in shown
        )
    sizes = {"a": {"error": 0.1}, "b": {"error": 0.5}}
    several = study(sizes, [ERROR], extra=(one("c", 0, 4, {"error": scores(0.9)}),))
    assert several.answer.rows[0].verdict == "inconclusive"  # c might have been lucky or not
    view = View(study({"a": {"error": 0.1}, "b": {"error": 0.5}}, [ERROR], seeds=2))
    assert any("one degree of freedom" in sentence for sentence in answer(view))


def test_scores_that_are_not_finite_are_named(tmp_path: Path) -> None:
    broken = scores(0.1)
    broken[3] = np.nan
    extra = (one("broken", 0, 4, {"error": broken}), one("broken", 1, 4, {"error": scores(0.1)}))
    results = study({"good": {"error": 0.2}}, [ERROR], seeds=2, extra=extra)
    [row] = results.answer.rows
    assert row.best == "good"  # what has no mean cannot be best
    # but may be better than what is: nothing is the best of all, nor alone
    assert row.verdict == "inconclusive" and row.missing == ["broken"]
    [line] = answer_lines(View(results))
    assert line.best_of_all == "inconclusive (no score of broken)"
    for shown in said(results, tmp_path):
        assert "1 of 80 scores of broken at 4 steps (sde) in error" in shown


def test_an_arm_whose_trainings_failed_is_missed() -> None:
    content = {"name": "made", "title": "Made", "description": "", "hypotheses": []}
    made = [one(arm, s, 4, {"error": scores(e)}) for arm, e in (("good", 0.2), ("bad", 0.5))
            for s in range(3)]  # fmt: skip
    cost = TrainingCost("good", 0, 100, {"student": {"forward": 1.0, "backward": 1.0}}, 2e12, 60.0)
    costs = [replace(cost, arm=arm, seed=s) for arm in ("good", "bad") for s in range(3)]
    [row] = build_results(content, made, costs, [ERROR], PROMPTS, {}, 200).answer.rows
    assert row.verdict == "supported" and row.missing == []
    costs += [replace(cost, arm="lost", seed=s, error="out of memory") for s in range(3)]
    [row] = build_results(content, made, costs, [ERROR], PROMPTS, {}, 200).answer.rows
    assert row.verdict == "inconclusive" and row.missing == ["lost"]


def test_a_metric_that_does_not_apply_is_no_failure() -> None:
    own = replace(DEFECT, own_steps=8)
    extra = (one("real-ish", None, 8, {"defect": np.full(len(PROMPTS), np.nan, np.float32)}),)
    results = study({"good": {"error": 0.2, "defect": 0.1}}, [ERROR, own], extra=extra)
    assert View(results).not_finite() == []


def test_hypotheses_are_adjusted_for_their_number() -> None:
    """Of forty hypotheses about equal arms the luckiest is inconclusive."""
    arms = {f"a{i}": {"error": 0.3} for i in range(10)}
    names = list(arms)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    stated = [{"a": a, "b": b, "metric": "error", "nfe": 4, "sampler": "sde"} for a, b in pairs]
    results = study(arms, [ERROR], spread=0.3, hypotheses=stated)
    made = results.hypotheses
    assert {h.verdict for h in made} == {"inconclusive"}
    assert min(h.comparison.p for h in made) < min(h.p_holm for h in made)
    shown = study({"a": {"error": 0.1}, "b": {"error": 0.5}}, [ERROR], hypotheses=[
        {"a": "a", "b": "b", "metric": "error", "nfe": 4, "sampler": "sde"},
        {"a": "b", "b": "a", "metric": "error", "nfe": 4, "sampler": "sde"},
        {"a": "a", "b": "b", "metric": "error", "nfe": 2, "sampler": "sde"},
    ])  # fmt: skip
    assert [h.verdict for h in shown.hypotheses] == ["supported", "contradicted", "not measured"]


def test_a_late_hypothesis_is_called_late(tmp_path: Path) -> None:
    hypothesis = {"a": "a", "b": "b", "metric": "error", "nfe": 4, "sampler": "sde"}
    sizes = {"a": {"error": 0.1}, "b": {"error": 0.5}}
    results = study(sizes, [ERROR], hypotheses=[hypothesis])
    late = results.hypotheses[0].model_copy(update={"stated": "after"})
    results = results.model_copy(update={"hypotheses": [late]})
    page, text = said(results, tmp_path)
    assert "stated: after" in page and "| after |" in text
    assert "before any run" not in page + text


def test_tuning_is_stated() -> None:
    results = study({"a": {"error": 0.1}}, [ERROR])
    assert "does not state" in tuning(View(results))

    def stated(settings: dict[str, int]) -> str:
        record = Tuning(split="validation", settings=settings, note="By hand.")
        changed = results.study.model_copy(update={"tuning": record})
        return tuning(View(results.model_copy(update={"study": changed})))

    assert stated({"a": 6, "b": 1}) == (
        "Unequal tuning (settings tried: a 6, b 1), on the validation split. By hand."
    )
    assert stated({"a": 2, "b": 2}).startswith("Equal tuning: 2 settings tried for every arm, on")


def test_the_primary_metric_must_judge() -> None:
    known = {m.name: m for m in (ERROR, MOTION, replace(DEFECT, own_steps=8))}
    check_primary("error", known, known.__getitem__, "s.yaml")
    with pytest.raises(ZooError, match=r"s.yaml: primary_metric: 'eror' is not .*'error'"):
        check_primary("eror", known, known.__getitem__, "s.yaml")
    for name in ("motion", "defect"):
        with pytest.raises(ZooError, match="name a metric of quality"):
            check_primary(name, known, known.__getitem__, "s.yaml")


class Plain:
    """The least that a third party's metric has."""

    direction, own_steps = "higher", None

    def measure(self, videos: Any) -> torch.Tensor:
        return torch.zeros(0)

    def reduce(self, rows: torch.Tensor) -> float:
        return float(rows.mean())


def test_what_a_metric_declares() -> None:
    def info_of(**own: Any) -> MetricInfo:
        checked = CheckedMetric(type("Own", (Plain,), own)(), "metric 'm'")
        return MetricInfo.of("m", checked, "")

    info = info_of()
    assert (info.kind, info.mean, info.target, info.bounds) == ("quality", False, None, None)
    for wrong, message in (
        ({"direction": "up"}, "direction is 'up'"),
        ({"direction": "target"}, "must have a target"),
        ({"kind": "vote"}, "kind is 'vote'"),
        ({"direction": "none", "kind": "quality"}, "needs a direction"),
    ):
        with pytest.raises(ZooError, match=message):
            info_of(**wrong)
    assert info_of(direction="none").kind == "description"
    assert direction_words("none", None) == ""


def test_what_selects_no_best_arm_says_so() -> None:
    legends = {m.name: MetricEntry.of(m).legend for m in (ERROR, MOTION, DEFECT)}
    assert legends["error"] == "lower is better"
    assert legends["motion"] == "no direction; a description, which selects no best arm"
    assert legends["defect"] == "lower is better; a diagnostic, which selects no best arm"


def test_a_plan_does_without_the_package_of_the_primary_metric():
    def make(name):
        raise MissingPackage(f"metric {name!r}: it is missing")

    check_primary("error", ["error"], make, "s.yaml")
    with pytest.raises(ZooError, match="did you mean 'error'"):
        check_primary("eror", ["error"], make, "s.yaml")
