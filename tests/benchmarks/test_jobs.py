"""What is done again and what is kept, as a study and its code change; with short trainings."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import numpy as np
import pytest

import benchmarks.runner.jobs.execution
from benchmarks.runner.jobs.execution import run_job
from benchmarks.runner.jobs.job import Job
from benchmarks.runner.jobs.results import read_job, stamps_of
from benchmarks.runner.workers import pool
from benchmarks.runner.workers.ranks import run_jobs_together
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.plugin.registration.registry import merge
from tests.benchmarks import planned_jobs
from tests.benchmarks.planned_jobs import DONE, arm, do, files, names, new


@pytest.mark.parametrize("process", ["of a worker", "of a distributed run"])
def test_networks_end_before_the_next_job_begins(process, planned, zoo, one_zoo, monkeypatch):
    """They refer to themselves, and Python may take many jobs to look for such circles."""
    kept, alive = [], []
    real = benchmarks.runner.jobs.execution._train

    def train(job: Job, *more: Any) -> Any:
        alive.extend(network() is not None for network in kept)
        found = real(job, *more)
        kept.append(weakref.ref(found[0]))
        return found

    monkeypatch.setattr(benchmarks.runner.jobs.execution, "_train", train)
    jobs = [job for job in planned({"seeds": [0, 1]}) if job.seed is not None]
    gc.disable()
    try:
        if process == "of a worker":
            do_one = pool._begin((planned_jobs.SIZES,), 1, "cpu")
            for job in jobs:
                do_one(job, lambda *progress: None)
        else:
            run_jobs_together(jobs, zoo, "cpu", lambda *progress: None)
    finally:
        gc.enable()
    assert alive == [False]


def test_a_student_is_measured_with_the_attention_of_all_others(planned, zoo, monkeypatch):
    """Not with that of its training, by which a resumed job would have other scores."""
    measured = []
    real = benchmarks.runner.jobs.execution.Measurer

    def spy(network: Any, *more: Any) -> Any:
        transformer = network.transformer
        measured.append({block.attn1.processor._attention_backend for block in transformer.blocks})
        return real(network, *more)

    monkeypatch.setattr(benchmarks.runner.jobs.execution, "Measurer", spy)
    do(arm(planned({"base": {"execution": {"attention": "_native_math"}}})), zoo)
    assert [{name.value for name in found} for found in measured] == [{"native"}]


def test_what_changes_no_weight_trains_nothing(planned, done, zoo, trainings):
    before = files(done)
    for changes in (
        {
            "base": {
                "training": {"log_every": 3, "checkpoint_every": 7, "trackers": ["tensorboard"]}
            }
        },
        {"base": {"training": {"precision": "fp32"}}},
        {"base": {"execution": {"micro_batch": 1, "gradient_checkpointing": True}}},
        {"base": {"quality": {"every": 1, "prompts": 2, "metrics": ["digits-class"]}}},
        {"evaluation": {"batch_size": 1}},
        {"title": "Another"},
    ):
        again = arm(planned(merge(DONE, changes)))
        assert again.folder == done.folder and again.done, changes
        do(again, zoo)
    assert files(done) == before and trainings == []


@pytest.mark.parametrize(
    "changes",
    [
        {"base": {"training": {"precision": "bf16"}}},
        {"base": {"training": {"updates": 2}}},
        {"base": {"training": {"clip": 1.0}}},
        {"base": {"training": {"optimizers": {"student": {"learning_rate": 1.0e-3}}}}},
        {"base": {"training": {"schedule": {"warmup": 1}}}},
        {"base": {"backbone": {"context_noise": 0.1}}},
        {"arms": {"a": {"method": {"objectives": {"self-consistency": {}}}}}},
        {"seeds": [1]},
    ],
    ids=str,
)
def test_what_may_change_weights_has_a_folder_of_its_own(planned, changes):
    assert arm(planned(changes)).folder != arm(planned()).folder


def test_two_types_of_device_share_nothing(planned):
    on_cpu, on_cuda = planned(), planned(device="cuda")
    assert [job.label for job in on_cpu] == [job.label for job in on_cuda]
    assert not {job.folder for job in on_cpu} & {job.folder for job in on_cuda}
    assert arm(on_cpu).precision == "fp32" and arm(on_cuda).precision == "bf16"
    with pytest.raises(ValueError, match="planned for cuda"):
        run_job(arm(on_cuda), load_zoo(), "cpu", lambda *progress: None)


def test_a_new_metric_measures_only_itself(planned, done, zoo, trainings):
    before = files(done)
    wider = {"evaluation": {"metrics": ["digits-rigidity", "digits-class", "semigroup-defect"]}}
    again = arm(planned(wider))
    assert not again.done
    do(again, zoo)
    assert names(new(before, files(done))) == {"digits-rigidity"}
    (measured, *_), cost = read_job(again)
    assert list(measured.rows) == ["digits-rigidity", "digits-class"] and cost is not None
    assert trainings == []


def test_a_new_number_of_steps_samples_only_itself(planned, done, zoo, trainings):
    before = files(done)
    again = do(arm(planned(merge(DONE, {"evaluation": {"nfe": [1, 2]}}))), zoo)
    written = {path.parent.name.rpartition("-")[0] for path in files(done).keys() - before.keys()}
    new(before, files(done))
    assert written == {"2-sde"} and trainings == []
    assert [one.nfe for one in read_job(again)[0]] == [1, 2, 8]
    # a student that is loaded is the one that was trained
    fresh = json.loads((done.folder / "trained.json").read_text())
    assert fresh["cost"]["updates"] == 1 and fresh["stamp"]["precision"] == "fp32"


def test_long_videos_are_cells_of_their_own(planned, done, zoo, trainings):
    before = files(done)
    long = {"lengths": [1, 2], "nfe": [1], "prompts": 2, "metrics": ["digits-class"], "shown": 1}
    longer = do(arm(planned({"evaluation": {"long": long}})), zoo)
    assert names(new(before, files(done))) == {"cell.json", "pixels", "digits-class"}
    before = files(done)
    long["metrics"] = ["digits-class", "digits-rigidity"]
    do(arm(planned({"evaluation": {"long": long}})), zoo)
    assert names(new(before, files(done))) == {"digits-rigidity"}
    (measured, *_), _ = read_job(longer)
    assert measured.long and measured.long.rows["digits-class"].shape == (4, 2)
    assert trainings == []


def test_what_there_is_not_is_known_and_not_looked_for_again(planned, zoo):
    """The bidirectional teacher has no long videos."""
    long = {"lengths": [1, 2], "nfe": [1], "prompts": 2, "shown": 1}
    jobs = planned({"evaluation": {"long": long}})
    (job,) = [job for job in jobs if job.label == "teacher-naive"]
    do(job, zoo)
    assert all(one.long is None for one in read_job(job)[0])


def test_a_killed_measuring_goes_on(planned, zoo, trainings, monkeypatch):
    job = arm(planned({"evaluation": {"metrics": ["digits-class", "digits-rigidity"]}}))
    real = benchmarks.evaluate.evaluator.Measurer._write

    def write(self: Any, cell: Any, name: str, arrays: Any) -> None:
        if name.startswith("digits-rigidity"):
            raise KeyboardInterrupt
        real(self, cell, name, arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(benchmarks.evaluate.evaluator.Measurer, "_write", write)
        do(job, zoo)
    before = files(job)
    assert not job.done and any(path.name.startswith("digits-class") for path in before)
    do(job, zoo)
    assert names(new(before, files(job))) == {"digits-rigidity"}
    assert trainings == ["a"]


def test_passes_are_counted_and_are_those_of_the_arithmetic(planned, done, zoo):
    jobs = planned({"evaluation": {"teacher": {"steps": 2, "guidance_scale": 3.0}}})
    for label, wanted in {
        "a": {"nfe": 1, "guidance": 0, "memory": 6 / 9},
        "initial-guided": {"nfe": 1, "guidance": 1, "memory": 12 / 9},
        "teacher": {"nfe": 2, "guidance": 2, "memory": 0},
    }.items():
        (job,) = [job for job in jobs if job.label == label]
        passes = read_job(do(job, zoo))[0][0].passes
        assert passes == pytest.approx(wanted), label


def test_own_rollouts_say_how_they_went(planned, done, zoo):
    metrics = ["digits-class", "semigroup-defect", "cache-distance"]
    job = do(arm(planned({"evaluation": {"metrics": metrics, "nfe": [8]}})), zoo)
    found = {(one.nfe, one.sampler): one for one in read_job(job)[0]}
    assert set(found) == {(8, "sde"), (8, "ode")}
    assert found[8, "sde"].own_rollouts == ("semigroup-defect",)
    assert found[8, "ode"].own_rollouts == ("cache-distance",) == tuple(found[8, "ode"].rows)
    assert len(found[8, "ode"].pixels) == 0


def test_every_file_says_by_what_it_was_made(planned, done, zoo):
    trained, measured = stamps_of(done)
    assert trained == measured and len(trained) == 1
    assert {"commit", "device", "precision", "torch"} <= set(trained[0])
    job = planned()[0]
    assert stamps_of(do(job, zoo))[0] == []


def test_features_are_kept_as_float32(planned, done, zoo):
    job = do(arm(planned({"evaluation": {"metrics": ["digits-fd"]}})), zoo)
    (path,) = job.folder.rglob("digits-fd-*.npz")
    rows = np.load(path)["rows"]
    assert rows.dtype == np.float32 and rows.ndim == 2


def test_a_metric_may_have_options_and_a_label(planned, done, zoo, trainings):
    def metrics(gap: int) -> dict[str, Any]:
        wide = {"name": "motion-magnitude", "gap": gap, "label": "motion-far"}
        return {"evaluation": {"metrics": ["motion-magnitude", wide]}}

    job = do(arm(planned(metrics(2))), zoo)
    rows = read_job(job)[0][0].rows
    assert list(rows) == ["motion-magnitude", "motion-far"]
    assert not np.allclose(rows["motion-magnitude"], rows["motion-far"])
    before = files(job)
    again = do(arm(planned(metrics(3))), zoo)
    assert names(new(before, files(job))) == {"motion-magnitude"}  # the file bears no label
    assert not np.allclose(read_job(again)[0][0].rows["motion-far"], rows["motion-far"])
    assert trainings == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([{"name": "motion-magnitude", "gab": 2}], "evaluation.metrics.0.gab: unknown key; did"),
        (["digits-fd", {"name": "motion-magnitude", "gap": 0}], "evaluation.metrics.1.gap"),
        ([{"name": "motion-magnitud"}], "did you mean 'motion-magnitude'"),
    ],
)
def test_a_wrong_option_of_a_metric_is_one_line(planned, metrics, said):
    with pytest.raises(ZooError) as caught:
        planned({"evaluation": {"metrics": metrics}})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_arm_may_be_sampled_in_its_own_way(planned, done, zoo, trainings):
    """It has one setting of its own, which stands under each sampler of the study."""
    study = {"nfe": [1, 2], "samplers": ["sde", "ode"], "metrics": ["digits-class"]}
    job = do(arm(planned({"evaluation": study})), zoo)
    before = files(job)
    own = {"sampler": "ode", "timestep_shift": 3.0, "guidance_scale": 1.5, "times": {2: [1.0, 0.4]}}
    changes = {"evaluation": study, "arms": {"a": {"evaluation": own}}}
    again = do(arm(planned(changes)), zoo)
    new(before, files(job))
    assert again.folder == job.folder and trainings == []
    assert len({cell.name for cell in again.cells}) == 2
    found = {(one.nfe, one.sampler): one for one in read_job(again)[0]}
    assert set(found) == {(1, "sde"), (1, "ode"), (2, "sde"), (2, "ode")}
    assert found[1, "sde"].setting == "ode, shift 3, guidance 1.5"
    assert found[2, "ode"].setting == "ode, shift 3, guidance 1.5, times 1 0.4"
    assert (found[2, "sde"].pixels == found[2, "ode"].pixels).all()
    assert found[2, "sde"].passes["guidance"] == 2
    plain = {(one.nfe, one.sampler): one for one in read_job(job)[0]}
    assert not (plain[2, "ode"].pixels == found[2, "ode"].pixels).all()
    assert plain[2, "ode"].setting is None
    (teacher,) = [one for one in planned(changes) if one.label == "teacher-naive"]
    assert {cell.setting for cell in teacher.cells} == {None}


def test_an_arms_own_shift_keeps_the_studys_samplers(planned):
    study = {"nfe": [1, 2], "samplers": ["sde", "ode"], "metrics": ["digits-class"]}
    changes = {"evaluation": study, "arms": {"a": {"evaluation": {"timestep_shift": 3}}}}
    cells = arm(planned(changes)).cells
    assert [cell.samplers for cell in cells] == [("sde",), ("ode",)] * 2
    assert {cell.sampling.timestep_shift for cell in cells if cell.sampling} == {3.0}
