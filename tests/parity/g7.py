"""G7: the semigroup loss, its gradient, and which times may be drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo_dmd.semigroup import choices, semigroup_loss
from tests.parity.goldens import (
    FORWARD,
    GRADIENT,
    Check,
    Golden,
    Skipped,
    as_tensor,
    relative_error,
    video,
)


def check(golden: Golden) -> Iterator[Check | Skipped]:
    for case, facts in golden.facts.get("cases", {}).items():
        if f"{case}/v1" in golden:
            yield from _loss(golden, case, facts)
        else:
            yield Skipped(golden.name, case, "its tensors are not in this folder")
    for segments, lists in golden.facts.get("sampling_sets", {}).items():
        for kind, exits in lists.items():
            error = _sets_error(int(segments.removeprefix("num_segments_")), kind, exits)
            yield Check(golden.name, f"{segments} {kind}", error, FORWARD)


def _loss(golden: Golden, case: str, facts: dict[str, Any]) -> Iterator[Check]:
    v1 = video(golden[f"{case}/v1"]).clone().requires_grad_()
    v2, x = video(golden[f"{case}/v2"]), video(golden[f"{case}/x_start"])
    chunks = facts["per_chunk"]
    frames = v1.shape[2] // len(chunks)

    def per_frame(name: str) -> Tensor:
        times = torch.tensor([chunk[name] / 1000 for chunk in chunks]).repeat_interleave(frames)
        return times.expand(v1.shape[0], -1)

    start, middle, end = (per_frame(name) for name in ("t_start", "t_mid", "t_end"))
    latent = facts["scfm_use_latent_target"]

    def loss(mask: Tensor | None = None) -> Tensor:
        return semigroup_loss(
            v1,
            v2,
            start[:, 0],  # one exit step for all chunks
            middle,
            end,
            x_start=x,
            space="latent" if latent else "velocity",
            mask=mask,
        )

    mask = torch.ones_like(v2)
    mask[:, :, :frames] = 0
    (gradient,) = torch.autograd.grad(loss(), v1)
    x_middle = flow.euler_step(x, v1, start, middle)
    landing = flow.euler_step(x_middle, v2, middle, end)
    found = {
        "weights": (1 - start[:, 0], FORWARD),
        "x_mid": (video(x_middle), FORWARD),
        "loss": (loss(), FORWARD),
        "loss_masked_first_chunk": (loss(mask), FORWARD),
        "dloss_dv1": (video(gradient), GRADIENT),
    }
    if latent:
        found["target"] = video(landing), FORWARD
        found["pred"] = video(flow.euler_step(x, v1, start, end)), FORWARD
    else:  # mean velocities over the whole jump
        found["target"] = video((x - landing) / flow.at(start - end, x)), FORWARD
        found["pred"] = video(v1), FORWARD
    # only logged by the released code: the clean estimate at the middle, by its look-up grid
    sigma = flow.nearest_sigma(middle, flow.published_sigmas(5))
    found["v2_x0"] = video(flow.x0_from_velocity(x_middle, v2, sigma)), FORWARD
    for quantity, (value, tolerance) in found.items():
        for one in golden.compare(f"{case}/{quantity}", value, tolerance):
            yield Check(f"{golden.name}/{case}", quantity, one.error, one.tolerance)


def _sets_error(segments: int, kind: str, exits: dict[str, Any]) -> float:
    """How far our times are from the recorded ones; infinite where there are others."""
    times = flow.step_list(int(kind.split("_")[0]), shift=5)
    # with one draw for all chunks, the released code truncates the drawn times to integers
    listed = (lambda t: float(int(1000 * t))) if "truncated" in kind else (lambda t: 1000 * t)
    found: list[float] = []
    wanted: list[float] = []
    for exit_step, entries in exits.items():
        ours = choices(times, int(exit_step), segments)
        entries = entries or []
        if [len(middles) for _, middles in ours] != [len(e["t_mid_choices"]) for e in entries]:
            return math.inf
        for (end, middles), entry in zip(ours, entries, strict=True):
            found += [1000 * times[int(exit_step)], *map(listed, [end, *middles])]
            wanted += [entry["t_start"], entry["t_end"], *entry["t_mid_choices"]]
    return relative_error(as_tensor(found), as_tensor(wanted))
