"""A discriminator of an objective, trained through the real trainer until its logit is Bayes's.

The student stays the Gaussian that it begins as, the data are another around the same means: the
best logit is the difference of their log densities, a quadratic form, which the discriminator can
be. Logistic regression is convex, so that there is no other optimum.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn.functional import softplus

from salt_zoo.config.run import resolve
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train
from tests.gaussian.networks import points
from tests.gaussian.plugin import MEANS, covariance, means

#: Of the student `transport` at its start.
SPREAD = 0.4


class Quadratic(nn.Module):
    """`a + b x + x C x` at every place, with a, b and C of the prompt."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(prompts))
        self.slope = nn.Parameter(torch.zeros(prompts, 2))
        self.bend = nn.Parameter(torch.zeros(prompts, 2, 2))

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        row = which.argmax(dim=1)
        linear = torch.einsum("bnd,bd->bn", x, self.slope[row])
        square = torch.einsum("bnd,bde,bne->bn", x, self.bend[row], x)
        return self.offset[row][:, None] + linear + square


class Judge:
    needs_data = True
    weight = 1.0

    def __init__(self, config: Any, zoo: Any) -> None:
        pass

    def roles(self) -> dict[str, NetworkSpec]:
        return {"judge": NetworkSpec(factory=lambda b: Quadratic(len(MEANS)), learning_rate=0.2)}

    def on_exit(self, exit: Any, path: Any, step: Any) -> None:
        return None

    def on_video(self, video: Any, path: Any, step: Any) -> Tensor:
        which = step.batch.condition["which"]
        return softplus(-step.networks["judge"](points(video), which)).mean()

    def on_generated(self, video: Tensor, step: Any) -> Tensor:
        judge, which = step.networks["judge"], step.batch.condition["which"]
        fake, real = (judge(points(one), which) for one in (video, step.batch.x0))
        return (softplus(fake) + softplus(-real)).mean()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    zoo = load_zoo(["tests.gaussian.plugin"])
    zoo.objectives.add("judge", Judge, "a discriminator of places, for tests")
    still = {"learning_rate": 1e-9, "weight_decay": 0.0}
    content = {
        "method": {
            "name": "dmd",
            "fake_score": {"updates": 1},
            "objectives": {"distribution-matching": None, "judge": {}},
        },
        "backbone": {"name": "gaussian", "student": "transport"},
        "dataset": "gaussian",
        "training": {
            "updates": 200,
            "batch_size": 16,
            "optimizers": {
                "student": still,
                "fake_score": still,
                "judge": {"betas": [0.9, 0.99], "weight_decay": 0.0},
            },
            "schedule": {"decay_from": 0.3, "final": 0.01},
            "ema": None,
            "checkpoint_every": 200,
            "trackers": [],
        },
    }
    resolved = resolve(content, zoo, "test")
    return train(resolved, tmp_path_factory.mktemp("judge"), zoo, "cpu")


@pytest.mark.parametrize("prompt", [prompt for prompt in MEANS if prompt])
def test_its_logit_is_that_of_bayes(trainer: Any, prompt: str) -> None:
    row = list(MEANS).index(prompt)
    mean, student = means()[row], SPREAD**2 * torch.eye(2)
    x = mean + SPREAD * torch.cartesian_prod(
        torch.linspace(-1.5, 1.5, 7), torch.linspace(-1.5, 1.5, 7)
    )
    real, fake = (MultivariateNormal(mean, spread) for spread in (covariance("full"), student))
    wanted = real.log_prob(x) - fake.log_prob(x)
    which = torch.eye(len(MEANS))[row][None]
    with torch.no_grad():
        found = trainer.networks["judge"](x[None], which)[0]
    assert wanted.max() - wanted.min() > 1
    assert (found - wanted).abs().max() < 0.1


def test_the_student_has_stayed(trainer: Any) -> None:
    """Or the optimum would be another."""
    factor = trainer.networks["student"].factor
    torch.testing.assert_close(factor, SPREAD * torch.eye(2), rtol=0, atol=1e-5)
