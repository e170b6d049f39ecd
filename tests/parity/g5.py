"""G5: grids, step lists, noising, conversions, and one Euler step of the released scheduler."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from salt_zoo.core import flow
from tests.parity.goldens import FORWARD, Check, Golden, Skipped, as_tensor, relative_error


def check(golden: Golden) -> Iterator[Check | Skipped]:
    yield from _grids(golden)
    yield from _step_lists(golden)
    yield from _arithmetic(golden)
    for key in golden.tensors:
        if key.startswith("out/training_weight"):
            golden[key]  # looked at, so that it is listed once
            reason = "no method here weights flow matching by time (nor does the released DMD)"
            yield Skipped(golden.name, key.removeprefix("out/"), reason)


def _grids(golden: Golden) -> Iterator[Check]:
    for shift in (5, 8):
        sigmas = flow.published_sigmas(shift)
        yield from golden.compare(f"out/sigmas_shift{shift}", sigmas)
        yield from golden.compare(f"out/timesteps_shift{shift}", 1000 * sigmas)
        if f"out/sigma_lookup_shift{shift}" in golden:
            found = flow.nearest_sigma(golden["in/t"] / 1000, sigmas)
            yield from golden.compare(f"out/sigma_lookup_shift{shift}", found)


def _step_lists(golden: Golden) -> Iterator[Check]:
    for count, wanted in golden.facts.get("steps_warped", {}).items():
        found = 1000 * as_tensor(flow.step_list(int(count), shift=5))
        yield from golden.compare(f"out/warped_steps_{count}", found)
        error = relative_error(found, as_tensor(wanted))
        yield Check(golden.name, f"steps_warped {count}", error, FORWARD)
    for count, exits in golden.facts.get("denoised_from_to", {}).items():
        # the unshifted times around an exit step; the list ends at 0
        times = [flow.unshift_time(t, 5) for t in flow.step_list(int(count), shift=5)] + [0.0]
        for name, offset in (("from", 0), ("to", 1)):
            found = 1000 * as_tensor([times[e["exit_index"] + offset] for e in exits])
            wanted = as_tensor([e[f"denoised_timestep_{name}"] for e in exits])
            error = relative_error(found, wanted)
            yield Check(golden.name, f"denoised_{name} {count}", error, FORWARD)


def _arithmetic(golden: Golden) -> Iterator[Check]:
    x0, noise, v, t = (golden[f"in/{name}"] for name in ("x0", "noise", "v", "t"))
    sigmas = flow.published_sigmas(5)
    sigma = flow.nearest_sigma(t / 1000, sigmas)
    x = golden["out/add_noise"] if "out/add_noise" in golden else flow.add_noise(x0, noise, sigma)
    yield from golden.compare("out/add_noise", flow.add_noise(x0, noise, sigma))
    yield from golden.compare("out/training_target", flow.velocity(x0, noise))
    sigma8 = flow.nearest_sigma(t / 1000, flow.published_sigmas(8))
    for key, at in (("out/x0_from_v", sigma), ("out/x0_from_v_shift8", sigma8)):
        yield from golden.compare(key, flow.x0_from_velocity(x, v, at))
    if "out/v_from_x0" in golden:
        yield from golden.compare("out/v_from_x0", flow.velocity_from_x0(x, x0, sigma))
    if "out/euler_step_first5" in golden:
        first = slice(len(golden["out/euler_step_first5"]))
        after = flow.euler_step(x[first], v[first], sigma[first], following(sigma[first], sigmas))
        yield from golden.compare("out/euler_step_first5", after)


def following(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """The grid's entry after each of `sigma`; 0 after the last."""
    index = (sigmas[None] - sigma[:, None]).abs().argmin(dim=1) + 1
    return torch.cat([sigmas, sigmas.new_zeros(1)])[index]
