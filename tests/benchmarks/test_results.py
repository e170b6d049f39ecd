from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from benchmarks.stats.model.schema import FailedTraining, Passes, Results
from benchmarks.stats.results import build_results
from benchmarks.stats.results_file import read_results, write_results
from benchmarks.study.metric_info import MetricInfo
from salt_zoo.core.base.errors import ZooError


def build(made: Any, **changes: Any) -> Results:
    given = {**vars(made), **changes}
    return build_results(**given, resamples=200)


def find(entries: Sequence[Any], **wanted: Any) -> Any:
    [found] = [e for e in entries if all(getattr(e, k) == value for k, value in wanted.items())]
    return found


@pytest.fixture(scope="module")
def study(make_study: Callable[..., Any]) -> Any:
    failing = {"cda": "loss is not finite"}
    # some prompts twice, some three times: resamples of several sizes
    return make_study(nfes=(1, 8), samplers=("sde", "ode"), prompts=48, failing=failing)


@pytest.fixture(scope="module")
def results(study: Any) -> Results:
    return build(study)


def test_rows(study: Any, results: Results) -> None:
    row = find(results.rows, arm="dmd", nfe=1, sampler="sde", metric="accuracy")
    scores = [
        item.rows["accuracy"].mean()
        for item in study.measured
        if (item.arm, item.nfe, item.sampler) == ("dmd", 1, "sde")
    ]
    assert row.mean == pytest.approx(np.mean(scores), rel=1e-5)
    assert row.seed_sd == pytest.approx(np.std(scores, ddof=1), rel=1e-5)
    assert row.low < row.mean < row.high
    assert (row.seeds, row.prompts, row.baseline) == (3, 20, False)
    assert row.videos == 48  # the prompts repeat
    assert row.memory == "full" and row.direction == "higher" and row.prompt_se > 0


def test_a_distance_is_one_network_s_distance(study: Any, results: Results) -> None:
    row = find(results.rows, arm="dmd", nfe=1, sampler="sde", metric="frechet")
    distances = [
        study.metrics[0].reduce(torch.from_numpy(item.rows["frechet"]))
        for item in study.measured
        if (item.arm, item.nfe, item.sampler) == ("dmd", 1, "sde")
    ]
    assert row.mean == pytest.approx(np.mean(distances), rel=1e-5)


def test_baselines(results: Results) -> None:
    real = find(results.rows, arm="real", metric="accuracy")
    assert real.baseline and real.nfe is None and real.seed_sd is None
    assert not [r for r in results.rows if r.arm == "real" and r.metric == "defect"]


def test_comparisons_are_every_pair_and_the_naive_teacher(results: Results) -> None:
    here = [c for c in results.comparisons if (c.nfe, c.sampler) == (1, "sde")]
    accuracy = {(c.a, c.b) for c in here if c.metric == "accuracy"}
    assert len(accuracy) == 4 * 3 // 2 + 4
    assert {("dmd", "teacher-naive"), ("consistency", "dmd")} <= accuracy
    assert len(results.comparisons) == 10 * 4 * 2 * 2
    # a diagnostic selects no best arm
    voting = [c for c in results.comparisons if c.metric != "defect"]
    # and at one step all samplers are one
    voting = [c for c in voting if (c.nfe, c.sampler) != (1, "ode")]
    assert results.comparisons_count == len(voting) == 10 * 3 * 3
    assert results.comparisons_by_chance == pytest.approx(4.5)
    assert results.comparisons_significant == sum(c.significant for c in voting)


def test_difference_is_a_minus_b_and_names_the_better(results: Results) -> None:
    setting = {"nfe": 1, "sampler": "sde", "metric": "rigidity"}
    rows = [find(results.rows, arm=arm, **setting) for arm in ("consistency", "sc-dmd-velocity")]
    found = find(results.comparisons, a="consistency", b="sc-dmd-velocity", **setting)
    assert found.difference == pytest.approx(rows[0].mean - rows[1].mean, rel=1e-4)
    assert found.significant and found.difference > 0
    assert found.better == "b"  # lower is better
    assert found.paired_by_seed and found.seeds == 3


def test_a_winner_is_better_than_every_other_arm(results: Results) -> None:
    assert any(row.winner for row in results.rows)
    for row in results.rows:
        if row.baseline or row.metric == "defect":  # a diagnostic
            assert not row.winner
            continue
        against = [
            c.better == ("a" if c.a == row.arm else "b")
            for c in results.comparisons
            if (c.metric, c.nfe, c.sampler) == (row.metric, row.nfe, row.sampler)
            and row.arm in (c.a, c.b)
            and c.b != "teacher-naive"
        ]
        assert row.winner == all(against)


def test_a_lone_arm_wins_nothing(make_study: Callable[..., Any]) -> None:
    results = build(make_study(arms={"dmd": 0.3}, seeds=1, nfes=(4,)))
    assert not any(row.winner for row in results.rows)
    assert {(c.a, c.b) for c in results.comparisons} == {("dmd", "teacher-naive")}


def test_hypotheses(results: Results, make_study: Callable[..., Any]) -> None:
    verdicts = [hypothesis.verdict for hypothesis in results.hypotheses]
    assert verdicts[:2] == ["supported", "contradicted"]
    # the teacher runs at its own number of steps
    assert results.hypotheses[2].verdict in ("supported", "inconclusive", "contradicted")
    absent = [{"metric": "defect", "nfe": 8, "a": "cda", "b": "dmd"}]
    small = make_study(arms={"dmd": 0.3}, seeds=1, nfes=(8,))
    changed = build(small, study={**small.study, "hypotheses": absent})
    assert changed.hypotheses[0].verdict == "not measured"


def test_an_arm_without_difference_is_inconclusive(make_study: Callable[..., Any]) -> None:
    study = make_study(arms={"dmd": 0.4, "twin": 0.4}, nfes=(1, 8))
    twins = [
        replace(item, rows=next(
            other.rows for other in study.measured
            if (other.arm, other.seed, other.nfe) == ("dmd", item.seed, item.nfe)
        )) if item.arm == "twin" else item
        for item in study.measured
    ]  # fmt: skip
    results = build(study, measured=twins)
    assert results.hypotheses[0].verdict == "inconclusive"
    assert results.hypotheses[0].comparison.difference == 0
    assert not any(row.winner for row in results.rows)


def test_arms_with_other_seeds_are_not_paired_by_seed(make_study: Callable[..., Any]) -> None:
    study = make_study()
    fewer = [item for item in study.measured if (item.arm, item.seed) != ("dmd", 1)]
    results = build(study, measured=fewer)
    setting = {"nfe": 1, "sampler": "sde", "metric": "rigidity"}
    found = find(results.comparisons, a="consistency", b="dmd", **setting)
    assert not found.paired_by_seed and found.seeds == 2
    assert find(results.rows, arm="dmd", **setting).seeds == 2


def test_costs_and_errors(results: Results) -> None:
    arm = find(results.arms, arm="dmd")
    assert arm.updates == 400 and arm.seconds == 300 and arm.seeds == [0, 1, 2]
    assert arm.passes["fake_score"] == Passes(forward=3600, backward=2400)
    failed = find(results.arms, arm="cda")
    assert failed.seeds == [] and failed.flops is None
    assert failed.errors == [FailedTraining(seed=0, updates=120, error="loss is not finite")]


def test_long_histories_are_thinned(make_study: Callable[..., Any]) -> None:
    study = make_study(arms={"dmd": 0.4, "cda": 0.3}, seeds=1, nfes=(8,))
    points = [{"step": float(step), "student/loss": 1.0} for step in range(1000)]
    points[503]["quality/rigidity@4"] = 0.1
    results = build(study, costs=[replace(study.costs[0], curve=points)])
    kept = [point["step"] for point in results.curves[0].points]
    assert len(kept) < 120 and {0, 503, 999} <= set(kept)


def test_a_metric_that_is_no_mean(make_study: Callable[..., Any]) -> None:
    study = make_study(arms={"dmd": 0.4, "cda": 0.3}, nfes=(8,), prompts=48)
    median = MetricInfo("defect", "lower", "", lambda rows: float(rows.median()))
    results = build(study, metrics=[median])
    row = find(results.rows, arm="dmd", metric="defect")
    medians = [np.sort(i.rows["defect"])[23] for i in study.measured if i.arm == "dmd"]
    assert row.mean == pytest.approx(np.mean(medians), rel=1e-5)


def test_scores_that_are_not_finite_become_null(make_study: Callable[..., Any]) -> None:
    study = make_study(arms={"dmd": 0.4, "cda": 0.3}, nfes=(8,))
    for item in study.measured:
        if item.arm == "dmd":
            item.rows["defect"][3] = np.nan
    results = build(study)
    row = find(results.rows, arm="dmd", metric="defect")
    assert row.mean is None and row.low is None and not row.winner
    json.dumps(results.to_json(), allow_nan=False)


def test_names_of_files_that_are_no_text_do_not_cost_the_report(
    make_study: Callable[..., Any], tmp_path: Path
) -> None:
    """Keys of provenance are names of a data set's files, whose bytes may be no UTF-8."""
    study = make_study(arms={"dmd": 0.3}, seeds=1, nfes=(4,))
    provenance = {**study.provenance, "inputs": {"clip-\udcff.npy": {"\ud800": 1}}}
    results = build(study, provenance=provenance)
    write_results(results, study.measured, tmp_path)
    (name,) = read_results(tmp_path).provenance.model_dump()["inputs"]
    assert name == "clip-\\udcff.npy"


def test_written_files(study: Any, results: Results, tmp_path: Path) -> None:
    write_results(results, study.measured, tmp_path)
    assert read_results(tmp_path) == results
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == 3
    table = pandas.read_parquet(tmp_path / "samples.parquet")
    scalars = sum(3 if item.arm != "real" else 2 for item in study.measured)
    assert len(table) == 48 * scalars
    some = table.query("arm == 'dmd' and seed == 1 and nfe == 8 and sampler == 'ode'")
    some = some[some.metric == "defect"].sort_values("prompt_index")
    [item] = [
        i for i in study.measured if (i.arm, i.seed, i.nfe, i.sampler) == ("dmd", 1, 8, "ode")
    ]
    assert some.score.to_numpy() == pytest.approx(item.rows["defect"])
    assert some.prompt.tolist() == study.prompts
    assert table[table.arm == "real"].seed.isna().all()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "digests.json",
        "results.json",
        "samples.parquet",
        "videos.npz",
    ]


def test_one_prompt_is_too_few(study: Any) -> None:
    with pytest.raises(ZooError, match="at least 2"):
        build(study, prompts=["a 7"] * 48)


def test_rows_must_match_the_prompts(study: Any) -> None:
    with pytest.raises(ValueError, match="48 rows for 47 prompts"):
        build(study, prompts=study.prompts[:-1])
