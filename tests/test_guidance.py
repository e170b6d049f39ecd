"""Guidance by a weaker network (arXiv 2406.02507)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.guidance import AutoGuided
from salt_zoo.planning.plan import plan_run
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo.training.launch import train
from tests.gaussian import closed_form

F64 = torch.float64


class Exact:
    """The velocity of one Gaussian, and how often it was evaluated."""

    def __init__(self, mean: float, spread: float) -> None:
        self.mean = torch.full((2,), mean, dtype=F64)
        self.covariance = spread**2 * torch.eye(2, dtype=F64)
        self.passes = 0

    def __call__(self, x: Tensor, t: Tensor, condition: Any, memory: Any = None) -> Tensor:
        self.passes += 1
        return closed_form.velocity(x, float(t[0]), self.mean, self.covariance)


@pytest.mark.parametrize("w", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("t", [0.1, 0.6, 1.0])
def test_it_is_the_closed_form(w, t):
    """Of Gaussians of one covariance: the velocity of the one whose mean is `m_weak + w (m -
    m_weak)`, as velocities are affine in the mean."""
    strong, weak = Exact(0.7, 0.5), Exact(-0.2, 0.5)
    x = torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = AutoGuided(strong, weak, w)(x, torch.tensor([t]), {})
    wanted = Exact(-0.2 + w * 0.9, 0.5)(x, torch.tensor([t]), {})
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert (strong.passes, weak.passes) == (1, 1)


def test_at_one_it_is_the_network_alone():
    strong, weak = Exact(0.7, 0.5), Exact(-0.2, 0.9)
    x, t = torch.randn(5, 2, dtype=F64), torch.tensor([0.4])
    assert torch.equal(AutoGuided(strong, weak, 1.0)(x, t, {}), strong(x, t, {}))
    assert weak.passes == 0


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return load_zoo(["tests.sizes.plugin"])


def run_of(zoo: Zoo, teacher: str | None = "test-wide", **term: Any) -> Any:
    content = {
        "method": {
            "name": "dmd",
            "steps": 1,
            "learning_rate": 1e-3,
            "fake_score": {"updates": 1},
            "objectives": {"distribution-matching": term},
        },
        "backbone": {"name": "wan", "size": "test-small"}
        | ({"teacher": {"size": teacher}} if teacher else {}),
        "dataset": "digits",
        "training": {"updates": 1, "batch_size": 1, "trackers": [], "ema": None},
    }
    return resolve(content, zoo, "test")


def weights(trainer: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.networks["student"].parameters()])


def test_the_real_score_is_guided_by_the_network_of_the_students_size(zoo: Zoo, tmp_path: Path):
    run = run_of(zoo, guide="score", guidance_scale=2.0)
    trainer = train(run, tmp_path, zoo, "cpu")
    counts = trainer.counter.counts
    assert counts["teacher"]["forward"] == counts["guide"]["forward"] == 1
    plan = plan_run(run, zoo, "cpu")
    assert plan.passes["guide"] == {"forward": 1.0, "backward": 0.0}
    assert plan.parameters["guide"] == plan.parameters["student"] < plan.parameters["teacher"]
    other = train(run_of(zoo, guidance_scale=2.0), tmp_path / "cfg", zoo, "cpu")
    assert not torch.equal(weights(trainer), weights(other))


def test_without_guidance_no_guide_is_loaded(zoo: Zoo, tmp_path: Path):
    one, other = (
        train(run_of(zoo, guidance_scale=1.0, **term), tmp_path / name, zoo, "cpu")
        for name, term in (("guide", {"guide": "score"}), ("plain", {}))
    )
    assert list(one.networks) == list(other.networks)
    assert torch.equal(weights(one), weights(other))


def test_a_teacher_of_the_students_size_cannot_be_guided(zoo: Zoo, tmp_path: Path):
    with pytest.raises(ZooError, match="the teacher has the student's size and would guide itself"):
        train(run_of(zoo, teacher=None, guide="score"), tmp_path, zoo, "cpu")
