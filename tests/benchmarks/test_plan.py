"""Plans of studies: training, measuring and starting, in hours for people."""

from __future__ import annotations

import math
import re

import pytest
import torch

from benchmarks.runner.planning.evaluation_plan import evaluation_flops
from benchmarks.runner.planning.plan import print_plan
from benchmarks.study.schema import load_study, read_study, runs_of, select_arms
from salt_zoo.config.run import resolve
from salt_zoo.costs.counter import Pass
from salt_zoo.costs.flops import flops_of_pass
from salt_zoo.io.durations import in_words
from salt_zoo.planning.plan import flops_per_update


def study_of(name, updates=4, methods=(), **evaluation):
    content, path = read_study(name)
    content["base"]["training"]["updates"] = updates
    content["match"] = "updates"
    content["evaluation"] |= evaluation
    for key in ("hypotheses", "claims", "primary_metric"):
        content.pop(key, None)
    return select_arms(load_study(content, str(path)), methods, name)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (130, "2 min 10 s"),
        (3000, "50 min"),
        (3599.7, "1 h"),
        (19_200, "5 h 20 min"),
        (7_200, "2 h"),
        (1_640.4 * 3600, "1,640 hours"),
        (1_643 * 3600, "1,640 hours"),
        (50 * 3600, "50 hours"),
    ],
)
def test_durations_in_words(seconds, said):
    assert in_words(seconds) == said


def test_measuring_by_hand(zoo):
    """Every number of steps with every sampler, and what metrics make themselves."""
    study = study_of("digits", methods=["dmd-8"])
    runs = runs_of(study, zoo, "digits")
    arms, baselines = evaluation_flops(study, runs, zoo)
    run = runs["dmd-8"]
    backbone = zoo.backbones.create("wan", run.backbone, zoo)
    one, _ = flops_of_pass(backbone, "student", Pass(backbone.latent_shape[1]))
    evaluation = study.evaluation
    videos = evaluation.prompts * evaluation.videos_per_prompt
    own = [zoo.metrics[name] for name in evaluation.metrics if name == "semigroup-defect"]
    steps = sum(evaluation.nfe) * len(evaluation.samplers) + 2 * 8 * len(own)
    assert own and arms["dmd-8"] == pytest.approx(videos * steps * one)
    teacher = evaluation.teacher
    assert baselines["teacher"] == pytest.approx(videos * 2 * teacher.steps * one)
    naive = arms["dmd-8"] / videos / one
    assert baselines["teacher-naive"] == pytest.approx(videos * naive * one)
    guided = 2 * sum(evaluation.nfe) * len(evaluation.samplers)
    assert baselines["teacher-guided"] == pytest.approx(videos * guided * one)
    assert baselines["real"] == 0 and not any(name.startswith("initial") for name in baselines)


def test_memory_writes_and_long_videos_are_counted(zoo):
    settings = {"nfe": [4], "samplers": ["sde"], "metrics": ["digits-fd"]}
    found = {}
    for long in (None, {"lengths": [1, 5], "nfe": [4], "prompts": 8, "videos_per_prompt": 1}):
        study = study_of("self_forcing", methods=["dmd-window"], long=long, **settings)
        arms, _ = evaluation_flops(study, runs_of(study, zoo, "test"), zoo)
        found[long is not None] = arms["dmd-window"]
    evaluation = study.evaluation
    videos = evaluation.prompts * evaluation.videos_per_prompt
    run = runs_of(study, zoo, "test")["dmd-window"]
    backbone = zoo.backbones.create("self-forcing", run.backbone, zoo)
    one, _ = flops_of_pass(backbone, "student", Pass(None))
    blocks = len(backbone.blocks().split(backbone.latent_shape[1]))
    each = one * (4 + (blocks - 1) / blocks)
    assert found[False] == pytest.approx(videos * each)
    assert found[True] - found[False] == pytest.approx(8 * 5 * each)


def test_quality_during_training_is_measuring(zoo, run_content):
    quality = {"every": 2, "prompts": 3, "steps": [1, 2], "metrics": ["digits-rigidity"]}
    study = study_of("digits", methods=["dmd-8"])
    plain = resolve(run_content(), zoo, "test")
    watched = resolve(run_content(quality=quality), zoo, "test")
    found = [evaluation_flops(study, {"dmd-8": run}, zoo)[0]["dmd-8"] for run in (plain, watched)]
    backbone = zoo.backbones.create("wan", plain.backbone, zoo)
    one, _ = flops_of_pass(backbone, "student", Pass(backbone.latent_shape[1]))
    assert found[1] - found[0] == pytest.approx(2 * 3 * (1 + 2) * one)


@pytest.mark.parametrize(
    ("name", "methods", "gpus"),
    [("digits", ["consistency", "dmd-8"], 0), ("wan_t2v", ["dmd-4"], 0), ("wan_t2v", ["dmd-4"], 4)],
)
def test_the_printed_plan_is_whole(name, methods, gpus, zoo, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    study = study_of(name, updates=2, methods=methods)
    if name == "digits":
        study.base["backbone"]["size"] = "test-tiny"
    runs = runs_of(study, zoo, name)
    print_plan(study, runs, zoo, "cpu")
    text = " ".join(capsys.readouterr().out.split())
    assert all(math.isfinite(flops_per_update(run, zoo)) for run in runs.values())
    assert "e+" not in text and "nan" not in text and "inf" not in text
    share = re.search(r"training ([\d,]+ \w+).*measuring ([\d,]+ \w+).*\((\d+)%\), starting", text)
    assert share and 0 < int(share[3]) < 100
    if name == "digits":
        assert "of one process (timed on this machine)" in text
    else:
        assert "on one GPU (assuming 40% of 989 TFLOP/s: --mfu, --tflops)" in text
        # the laptop's cores train no such network
        assert ("with 4 GPUs" in text) == (gpus == 4) and "at a time" not in text
