"""A made-up study: moving digits that get better with more steps, scored by made-up metrics."""

from __future__ import annotations

import functools
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import benchmarks.runner.jobs.execution
from benchmarks.evaluate.records import EvalResult, LongVideoResult, TrainingCost
from benchmarks.runner.arms import plan_runs
from benchmarks.runner.jobs.job import Job
from benchmarks.runner.runner import make_jobs
from benchmarks.study.metric_info import MetricInfo
from benchmarks.study.schema import load_study
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo.plugin.registration.registry import merge
from tests.benchmarks import planned_jobs

#: How good an arm is at 1 step: the share of noise left in its videos, halved by every doubling.
ARMS = {"consistency": 0.5, "dmd": 0.42, "sc-dmd": 0.40, "sc-dmd-velocity": 0.3}
DIRECTIONS = ("right", "left", "down", "up-left")


@dataclass
class Study:
    """What the study runner hands over."""

    study: dict[str, Any]
    measured: list[EvalResult]
    costs: list[TrainingCost]
    metrics: list[MetricInfo]
    prompts: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)
    long_metrics: list[MetricInfo] = field(default_factory=list)
    long_prompts: list[str] = field(default_factory=list)


def _mean(rows: torch.Tensor) -> float:
    return float(rows.mean())


def _distance(rows: torch.Tensor) -> float:
    """Frechet distance to a standard normal with the covariances' diagonals."""
    return float((rows.mean(0) ** 2).sum() + ((rows.std(0) - 1) ** 2).sum())


def _distances(rows: torch.Tensor) -> torch.Tensor:
    """`_distance` of `[R, P, D]` at once."""
    return (rows.mean(1) ** 2).sum(-1) + ((rows.std(1) - 1) ** 2).sum(-1)


METRICS = [
    MetricInfo(
        "frechet",
        "lower",
        "Fréchet distance of judge features to held-out data",
        _distance,
        reduce_many=_distances,
    ),
    MetricInfo(
        "accuracy",
        "higher",
        "share of videos that show the commanded digit",
        _mean,
        mean=True,
        bounds=(0, 1),
    ),
    MetricInfo(
        "rigidity",
        "lower",
        "share of energy that a rigid moving digit cannot explain",
        _mean,
        mean=True,
    ),
    MetricInfo(
        "defect",
        "lower",
        "semigroup defect of the network on its own rollouts",
        _mean,
        kind="diagnostic",
        mean=True,
    ),
]


@functools.cache
def _images() -> np.ndarray:
    return load_digits().images / 16


def _videos(count: int, noise: float, frames: int = 9) -> np.ndarray:
    """uint8 `[count, 1, frames, 16, 16]`."""
    images = _images()[:count]
    generator = np.random.default_rng(3)
    videos = np.zeros((count, 1, frames, 16, 16))
    for index, image in enumerate(images):
        for frame in range(frames):
            videos[index, 0, frame, 4:12, :8] += image
            videos[index, 0, frame] = np.roll(videos[index, 0, frame], frame, axis=1)
    videos = videos * (1 - noise) + noise * generator.random(videos.shape)
    return (videos.clip(0, 1) * 255).astype(np.uint8)


def _measured(
    arm: str, method: str, seed: int | None, nfe: int | None, sampler: str | None, noise: float,
    prompts: int,
) -> EvalResult:  # fmt: skip
    shared = np.random.default_rng(1).normal(size=prompts)  # how hard a prompt is, for every arm
    own = np.random.default_rng([zlib.crc32(arm.encode()), seed or 0, nfe or 0])
    shift = noise + 0.02 * own.normal() * (seed is not None)
    rows = {
        "frechet": own.normal(size=(prompts, 8)) * (1 + shift) + 2 * shift,
        "accuracy": (0.3 * shared + 0.5 * own.normal(size=prompts) < 1.3 - 2.2 * shift) * 1.0,
        "rigidity": np.abs(0.8 * shift + 0.03 * shared * (seed is not None)),
        "defect": 0.1 + 0.3 * shift + 0.02 * shared + 0.01 * own.normal(size=prompts),
    }
    if arm == "real":
        del rows["defect"]
    return EvalResult(
        arm, method, "digits", "full" if seed is not None else None, seed, nfe, sampler,
        {"nfe": nfe or 0, "guidance": 50 if arm == "teacher" else 0, "memory": 0},
        {name: scores.astype(np.float32) for name, scores in rows.items()},
        _videos(min(prompts, 8), min(noise, 1)),
    )  # fmt: skip


#: Long videos: clips of 9 frames, of which the first three overlap, up to ten times as many: a
#: clip's place says neither its length nor its time.
STOPS = [9, 12, 18, 27, 36, 45, 54, 63, 72, 90]


def _long(item: EvalResult, prompts: int) -> LongVideoResult:
    """Clips that get worse with time as fast as the arm is bad; real ones do not."""
    own = np.random.default_rng([zlib.crc32(item.arm.encode()), item.seed or 0, 7])
    pace = 0.0 if item.arm == "real" else 0.02 * ARMS.get(item.arm, 0.6)
    rows = {
        name: np.stack(
            [
                scores[:prompts]
                + (pace * stop / 9 + 0.01 * own.normal(size=scores[:prompts].shape))
                * (-1 if name == "accuracy" else 1)
                for stop in STOPS
            ]
        ).astype(np.float32)
        for name, scores in item.rows.items()
        if name != "defect"
    }
    noise = min(pace * 10, 1)
    ends = {str(length): STOPS.index(9 * length) for length in (1, 4, 10)}
    return LongVideoResult(9, STOPS, ends, rows, _videos(2, noise, 90))


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    def make(
        arms: dict[str, float] | None = None,
        seeds: int = 3,
        nfes: tuple[int, ...] = (1, 2, 4, 8),
        samplers: tuple[str, ...] = ("sde",),
        prompts: int = 40,  # each twice: reductions take many resamples of one size at once
        failing: dict[str, str] | None = None,
        long: int = 0,
    ) -> Study:
        arms = ARMS if arms is None else arms
        texts = [f"a {i % 10} moving {DIRECTIONS[i % 4]} slowly" for i in range(prompts)]
        measured = [
            _measured("real", "real", None, None, None, 0.0, prompts),
            _measured("teacher", "teacher", None, 50, "ode", 0.03, prompts),
        ]
        costs = []
        for sampler in samplers:
            for nfe in nfes:
                share = 1 / nfe + 0.05 * (sampler == "ode")
                measured.append(
                    _measured("teacher-naive", "teacher-naive", None, nfe, sampler, share, prompts)
                )
                for arm, noise in arms.items():
                    for seed in range(seeds):
                        measured.append(
                            _measured(arm, arm, seed, nfe, sampler, noise * share, prompts)
                        )
        for place, (arm, noise) in enumerate(arms.items()):
            for seed in range(seeds):
                curve: list[dict[str, float]] = []
                for step in range(10, 410, 10):
                    left = noise + np.exp(-step / (60 + 10 * place)) + 0.01 * np.sin(step + seed)
                    point = {"step": step, "seconds": step * 0.7, "student/loss": 0.3 * left}
                    if step % 100 == 0:
                        point["quality/rigidity@4"] = 0.2 * left
                    curve.append(point)
                passes = {"student": {"forward": 5400.0, "backward": 1200.0}}
                if place:
                    passes |= {
                        "teacher": {"forward": 2400.0, "backward": 0.0},
                        "fake_score": {"forward": 3600.0, "backward": 2400.0},
                    }
                flops = 2.1e12 + 1.3e12 * place
                costs.append(
                    TrainingCost(arm, seed, 400, passes, flops, 280.0 + 20 * place, None, curve)
                )
        for arm, error in (failing or {}).items():
            costs.append(TrainingCost(arm, 0, 120, {}, 0.0, 30.0, error))
        names = list(arms)
        hypotheses = [{"metric": "defect", "nfe": nfes[0], "a": names[-1], "b": names[0]}]
        hypotheses += [{"metric": "rigidity", "nfe": nfes[0], "a": names[0], "b": names[-1]}]
        hypotheses += [{"metric": "accuracy", "nfe": nfes[-1], "a": names[-1], "b": "teacher"}]
        study = {
            "name": "synthetic",
            "title": "Four ways to distil moving digits",
            "description": "Made-up numbers that exercise a report.",
            "hypotheses": hypotheses,
            "arms": [{"name": arm, "method": {"name": arm}} for arm in arms],
        }
        provenance = {
            "commit": "0123abc",
            "versions": {"torch": "2.13.0", "diffusers": "0.36.0"},
            "hardware": "2 CPU cores",
            "teacher": {"teacher.safetensors": "deadbeefdeadbeef"},
        }
        if long:  # of so many rows
            measured = [
                replace(item, long=_long(item, long)) if item.nfe in (None, 4) else item
                for item in measured
            ]
        made = Study(study, measured, costs, METRICS, texts, provenance)
        return replace(made, long_metrics=METRICS, long_prompts=texts[:long]) if long else made

    return make


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    """The zoo of all installed plugins and of the tests' sizes."""
    return load_zoo([planned_jobs.SIZES])


@pytest.fixture
def one_zoo(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process are given the zoo of all tests, which knows already what passes
    cost, unless they name other plugins."""

    def load(extra: Sequence[str] = ()) -> Zoo:
        return zoo if {*extra} <= {planned_jobs.SIZES} else load_zoo(extra)

    for module in ("salt_zoo.cli", "salt_zoo.plugin.manager"):
        monkeypatch.setattr(f"{module}.load_zoo", load)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of all jobs that were trained, in order."""
    labels: list[str] = []
    real = benchmarks.runner.jobs.execution._train

    def train(job: Job, *more: Any) -> Any:
        labels.append(job.label)
        return real(job, *more)

    monkeypatch.setattr(benchmarks.runner.jobs.execution, "_train", train)
    return labels


def _plan(changes: Any, zoo: Zoo, out: Path, device: str) -> list[Job]:
    study = load_study(merge(planned_jobs.STUDY, changes or {}), "mini.yaml")
    return make_jobs(study, plan_runs(study, zoo, "mini.yaml")[0], zoo, out, device)


@pytest.fixture
def planned(tmp_path: Path, zoo: Zoo) -> Callable[..., list[Job]]:
    """The jobs of the study with some keys changed."""

    def plan(changes: Any = None, zoo: Zoo = zoo, device: str = "cpu") -> list[Job]:
        return _plan(changes, zoo, tmp_path, device)

    return plan


@pytest.fixture(scope="session")
def _done(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo) -> Path:
    """Where the arm of the study is trained and measured, once for all tests."""
    folder = tmp_path_factory.mktemp("done")
    planned_jobs.do(planned_jobs.arm(_plan(planned_jobs.DONE, zoo, folder, "cpu")), zoo)
    return folder


@pytest.fixture
def done(_done: Path, planned: Callable[..., list[Job]], tmp_path: Path) -> Job:
    """The arm's job, done, in a folder that the test may change."""
    shutil.copytree(_done, tmp_path, dirs_exist_ok=True)
    job = planned_jobs.arm(planned(planned_jobs.DONE))
    assert job.done
    return job
