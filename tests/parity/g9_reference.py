"""G9's reference paths: CDA's denser rollouts on a memory of their own, beside a student's.

The draws of a block in the released code: the student's, to its second time; with `independent` two
of the reference's, to its second and third time; the reference's and then the student's for what is
remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salt_zoo.core.networks.blocks import RolloutPath
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.rollout.sampler import rollout
from salt_zoo_cda.alignment import x0
from salt_zoo_cda.reference import Renoising, reference_video
from tests.parity.causal import Released, network, policy
from tests.parity.goldens import FORWARD, GRADIENT, Check, Golden, Skipped, video

OFFERED: dict[str, Renoising] = {"independent": "independent", "noise_aligned_b": "aligned"}


def check(golden: Golden, name: str, facts: dict[str, Any]) -> Iterator[Check | Skipped]:
    """The student's output, the reference's, and the distance of the two."""
    case = f"{golden.name}/{name}"

    def compare(key: str, found: Tensor, tolerance: float = FORWARD) -> Iterator[Check]:
        for one in golden.compare(f"{name}/{key}", found, tolerance):
            yield Check(case, key, one.error, one.tolerance)

    model = network(golden, policy(facts))
    noise, rng = video(golden[f"{name}/noise"]), golden[f"{name}/draws"]
    each = len(rng) // len(model.partition.split(noise.shape[2]))
    student, dense = (
        Released(model, [t / 1000 for t in facts[key]], rng, each, "sde", each - from_end)
        for key, from_end in (("steps", 1), ("ref_steps", 2))
    )
    condition, exit_step = {"text": golden["in/context"]}, facts["exit_index"]
    output = rollout(
        student,
        noise,
        condition,
        student.times,
        blocks=model.partition,
        renoise=student.renoise,
        exit_step=exit_step,
    )
    yield from compare("output", video(output))
    mode = facts["drift_mode"]
    if mode not in OFFERED or facts.get("drift_share_exit_input"):
        for key in ("drift_target", "drift_loss"):
            golden[f"{name}/{key}"]  # looked at, so that it is listed once
        what = mode if mode not in OFFERED else "share_exit_input"
        yield Skipped(case, "drift_target, drift_loss", f"the library does not offer {what}")
        return
    turn = TrainStep(
        role="student",
        index=0,
        networks={},
        batch=Batch([""], condition, condition, None),
        rng=_Recorded(noise, student, dense),  # type: ignore[arg-type]
        blocks=model.partition,
        latent_shape=tuple(noise.shape[1:]),  # type: ignore[arg-type]
        backward=torch.Tensor.backward,
    )
    path = RolloutPath(student.times, exit_step)
    target = reference_video(dense, turn, path, dense.times, OFFERED[mode])
    yield from compare("drift_target", video(target))
    # rounding counts for more in the difference of two close videos
    yield from compare("drift_loss", x0(output, target), GRADIENT)


@dataclass(frozen=True)
class _Recorded:
    """The golden's noise in place of the step's streams."""

    noise: Tensor
    student: Released
    dense: Released
    reference: bool = False

    def at(self, scope: str) -> _Recorded:
        assert scope == "reference"
        return _Recorded(self.noise, self.student, self.dense, True)

    def randn(self, shape: Any, purpose: str, block: int, t: int = 0) -> Tensor:
        frames = shape[1]
        if purpose == "initial noise":
            return self.noise[:, :, block * frames : (block + 1) * frames]
        path = self.dense if self.reference else self.student
        step = [round(1e6 * time) for time in path.times].index(t)
        drawn: Tensor = path.draw(block, step if self.reference else step - 1)
        return drawn
