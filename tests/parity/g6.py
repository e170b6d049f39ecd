"""G6: the distribution-matching gradient and loss, and the fake score's loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo_dmd.losses import (
    distribution_matching_gradient,
    distribution_matching_loss,
    fake_score_loss,
)
from salt_zoo_dmd.objectives import ScoreTimes
from tests.parity.goldens import FORWARD, GRADIENT, Check, Golden, Skipped, video


def check(golden: Golden) -> Iterator[Check | Skipped]:
    x = video(golden["in/x0_student"])
    t = ScoreTimes().draw(golden["in/raw_timestep_int"] / 1000)[:, None].expand(-1, x.shape[2])
    yield from golden.compare("out/timestep", 1000 * t)
    sigma = flow.nearest_sigma(t, flow.published_sigmas(5))
    noisy = flow.add_noise(x, video(golden["in/noise"]), sigma)
    yield from golden.compare("out/noisy_latent", video(noisy))
    for case, facts in golden.facts.items():
        if f"out/{case}/kl_grad" in golden:
            yield from _student(golden, case, facts, x)
    if "out/critic/loss" in golden:
        yield from _critic(golden, x, sigma)


def _student(golden: Golden, case: str, facts: dict[str, Any], x: Tensor) -> Iterator[Check]:
    def estimate(name: str) -> Tensor:
        cond, uncond = (video(golden[f"in/{name}_x0_{half}"]) for half in ("cond", "uncond"))
        # the released code's scale s is our w = 1 + s
        return flow.guide(uncond, cond, 1 + facts[f"{name}_guidance_scale"])

    real, fake = estimate("real"), estimate("fake")
    name = f"{golden.name}/{case}"
    gradient = distribution_matching_gradient(x, real, fake)
    mask = None
    if facts["masked_first_3_frames"]:
        mask = torch.ones_like(x, dtype=torch.bool)
        mask[:, :, :3] = False
    student = x.clone().requires_grad_()
    loss = distribution_matching_loss(student, gradient, mask)
    loss.backward()
    assert student.grad is not None
    for quantity, found, tolerance in (
        ("kl_grad_unnormalised", video(fake - real), FORWARD),
        ("kl_grad", video(gradient), FORWARD),
        ("loss", loss, FORWARD),
        ("dloss_dx", video(student.grad), GRADIENT),
    ):
        for one in golden.compare(f"out/{case}/{quantity}", found, tolerance):
            yield Check(name, quantity, one.error, one.tolerance)


def _critic(golden: Golden, x: Tensor, sigma: Tensor) -> Iterator[Check]:
    noise = video(golden["in/critic_noise"])
    noisy = flow.add_noise(x, noise, sigma)
    clean = video(golden["in/fake_x0_cond"]).clone().requires_grad_()
    v = flow.velocity_from_x0(noisy, clean, sigma)
    loss = fake_score_loss(v, x, noise)
    loss.backward()
    assert clean.grad is not None
    yield from golden.compare("out/critic/noisy", video(noisy))
    yield from golden.compare("out/critic/flow_pred", video(v))
    yield from golden.compare("out/critic/loss", loss)
    yield from golden.compare("out/critic/dloss_dpred_x0", video(clean.grad), GRADIENT)
