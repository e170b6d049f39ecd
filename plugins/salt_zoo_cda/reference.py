"""The reference path: the same network with more steps, on a memory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.blocks import Renoise, RolloutPath
from salt_zoo.core.protocols import TrainStep, VelocityNetwork
from salt_zoo.rollout.sampler import initial_noise, renoise_from, rollout

#: How the reference is noised again: with noise of its own, or with the student's noise at the
#: times that both lists have and along the velocity at the others.
Renoising = Literal["independent", "aligned"]

_SAME = 1e-6


def reference_video(
    student: VelocityNetwork,
    step: TrainStep,
    path: RolloutPath,
    times: Sequence[float],
    renoising: Renoising,
) -> Tensor:
    """What `student` makes of the step's initial noise and prompts on a denser step list.

    Without gradient. It exits at the student's exit time and remembers its own blocks.

    Args:
        path: the student's; its exit time is one of `times`.
        times: the reference's step list.

    Returns:
        `[B, C, F, H, W]`.

    Raises:
        ZooError: the student's exit time is not one of `times`.

    Source: arXiv 2604.03118; `aligned` is `noise_aligned_b` of its released code.
    """
    exit_time = path.times[path.exit_step]
    exits = [index for index, t in enumerate(times) if abs(t - exit_time) < _SAME]
    if not exits:
        listed = ", ".join(f"{t:.3g}" for t in times)
        raise ZooError(
            f"the reference's times {listed} lack the student's exit time {exit_time:.3g}; "
            "cache-alignment.timestep_shift must be the method's"
        )
    video = rollout(
        student,
        initial_noise(step.rng, step.blocks, step.latent_shape),
        step.batch.condition,
        times,
        blocks=step.blocks,
        renoise=reference_noise(step, path, renoising),
        exit_step=exits[0],
        sampler=path.sampler if renoising == "independent" else "sde",
    )
    return video.detach()


def reference_noise(step: TrainStep, path: RolloutPath, renoising: Renoising) -> Renoise:
    """The noise of the reference's steps; see `Renoising`."""
    if renoising == "independent":
        return renoise_from(step.rng.at("reference"), step.blocks, step.latent_shape)
    own = renoise_from(step.rng, step.blocks, step.latent_shape)

    def shared(block: int, t: float) -> Tensor | None:
        if t == step.blocks.context_noise:  # what is remembered is noised whatever the sampler
            return own(block, t)
        # draws are keyed by the time: where both lists have it, these are the student's
        listed = any(abs(t - other) < _SAME for other in path.times)
        return own(block, t) if listed and path.sampler == "sde" else None

    return shared
