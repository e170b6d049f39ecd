"""G9: whole rollouts, and the semigroup loss and its gradients along them.

The released codes' times are translated by `causal.Released`. In the library's own continuous times
and without context noise the same rollouts end 4e-4 to 7e-4 from the released ones where those
remember noised blocks (training), and 1.4e-6 where they remember exact ones (the four-step list
lies on the grid).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from salt_zoo.core import flow
from salt_zoo.core.networks.blocks import Blocks, ExitStep
from salt_zoo.rollout.sampler import full_time, iter_rollout, replay, rollout
from salt_zoo_dmd.semigroup import semigroup_loss
from salt_zoo_wan.checkpoint.export import to_original
from tests.parity import g9_reference
from tests.parity.causal import Released, network, policy, renoise_of
from tests.parity.goldens import FORWARD, GRADIENT, Check, Golden, Skipped, relative_error, video

#: How far outputs in continuous times may be from the released grid's.
CONTINUOUS = 1e-3


def check(golden: Golden) -> Iterator[Check | Skipped]:
    for name, facts in golden.facts["cases"].items():
        if f"{name}/noise" not in golden:
            yield Skipped(golden.name, name, "its tensors are not in this folder")
        elif "ref_steps" in facts:
            yield from g9_reference.check(golden, name, facts)
        else:
            yield from _Case(golden, name, facts).check()


@dataclass(frozen=True)
class _Case:
    golden: Golden
    name: str
    facts: dict[str, Any]

    def __getitem__(self, key: str) -> Tensor:
        return self.golden[f"{self.name}/{key}"]

    def compare(self, key: str, found: Tensor, tolerance: float = FORWARD) -> Iterator[Check]:
        for one in self.golden.compare(f"{self.name}/{key}", found, tolerance):
            yield Check(f"{self.golden.name}/{self.name}", key, one.error, one.tolerance)

    def check(self) -> Iterator[Check | Skipped]:
        inference = "exit_index" not in self.facts
        times = [t / 1000 for t in self.facts["steps"]]
        last = self.facts.get("exit_index", len(times) - 1)
        sampler: Literal["sde", "ode"] = self.facts.get("consistency_mode", "sde")
        model = network(self.golden, policy(self.facts))
        noise, condition = video(self["noise"]), {"text": self.golden["in/context"]}
        blocks: Blocks = model.partition
        each = len(self["draws"]) // len(blocks.split(noise.shape[2]))
        context = None if inference else each - 1
        released = Released(model, times, self["draws"], each, sampler, context)
        exits = list(
            iter_rollout(
                released,
                noise,
                condition,
                released.times,
                blocks=blocks,
                renoise=released.renoise,
                exit_step=last,
                sampler=sampler,
            )
        )
        yield from self.compare("output", _joined([exit.x0 for exit in exits]))
        continuous = rollout(
            model,
            noise,
            condition,
            times,
            blocks=blocks,
            renoise=renoise_of(self["draws"], each, times),
            exit_step=last,
            sampler=sampler,
        )
        error = relative_error(video(continuous), self["output"])
        case = f"{self.golden.name}/{self.name}"
        yield Check(case, "output, continuous times", error, CONTINUOUS)
        if "per_chunk" in self.facts:
            yield from self._semigroup(released, exits)
        if f"{self.name}/grad_loss" in self.golden:
            yield from self._gradient(released, exits)

    def _semigroup(self, released: Released, exits: Sequence[ExitStep]) -> Iterator[Check]:
        found: dict[str, list[Tensor]] = {}
        for exit in replay(released, exits, released.model.partition, released.renoise):
            for name, value in self._terms(released, exit).items():
                found.setdefault(name, []).append(value.detach())
        weights = [1 - chunk["t_start"] / 1000 for chunk in self.facts["per_chunk"][:1]]
        yield from self.compare("scfm_weights", torch.tensor(weights))
        # The difference of two close velocities magnifies the rounding of diffusers' embedding of
        # time, whose angles are float32 and the released code's float64: 2e-5, and 1e-6 without it.
        yield from self.compare("sc_loss", torch.stack(found.pop("sc_loss")).mean(), GRADIENT)
        for name, parts in found.items():
            yield from self.compare(name, _joined(parts))

    def _terms(self, released: Released, exit: ExitStep) -> dict[str, Tensor]:
        """The semigroup loss of one block, and what it is made of."""
        chunk = self.facts["per_chunk"][exit.block]
        start, middle, end = (chunk[name] / 1000 for name in ("t_start", "t_mid", "t_end"))
        v = exit.v / released.scale(exit.t)
        with torch.no_grad():
            x_middle = flow.euler_step(exit.x, v, start, middle)
            v_middle = released.model(
                x_middle, full_time(middle, x_middle), exit.condition, exit.memory
            )
        sigma = flow.nearest_sigma(torch.tensor(middle), flow.published_sigmas(5))
        return {
            "sc_loss": semigroup_loss(v, v_middle, start, middle, end, x_start=exit.x),
            "x_start": exit.x,
            "v1": v,
            "scfm_pred": flow.euler_step(exit.x, v, start, end),
            "scfm_target": flow.euler_step(x_middle, v_middle, middle, end),
            "scfm_target_x0": flow.x0_from_velocity(x_middle, v_middle, sigma),
        }

    def _gradient(self, released: Released, exits: Sequence[ExitStep]) -> Iterator[Check | Skipped]:
        """Of `0.2 * sc_loss + 10 * mean(output * R)`, block by block, with recomputation."""
        model, mark = released.model, video(self["R"])
        model.enable_gradient_checkpointing()
        model.train()
        total = torch.zeros((), dtype=torch.float64)
        for exit in replay(released, exits, model.partition, released.renoise):
            marked = (exit.x0 * mark[:, :, exit.frames]).sum() / mark.numel()
            loss = 0.2 * self._terms(released, exit)["sc_loss"] / len(exits) + 10 * marked
            loss.backward()
            total += loss.detach()
        yield from self.compare("grad_loss", total)
        found = {name: weight.grad for name, weight in model.transformer.named_parameters()}
        errors = {}
        for name, gradient in to_original(found).items():
            key = f"{self.name}/grad_noleak/{name}"
            for one in self.golden.compare(key, gradient, GRADIENT):
                errors[name] = one.error
        worst = max(errors, key=lambda name: errors[name])
        case = f"{self.golden.name}/{self.name}"
        quantity = f"worst of {len(errors)} weights' gradients"
        yield Check(case, quantity, errors[worst], GRADIENT)
        official = [key for key in self.golden.tensors if "/grad_official/" in key]
        for key in official:
            self.golden[key]  # looked at, so that it is listed once
        if official:
            reason = "they leak through the memory; `grad_noleak` is compared with instead"
            yield Skipped(self.golden.name, f"{self.name}/grad_official", reason)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return video(torch.cat(list(parts), dim=2))
