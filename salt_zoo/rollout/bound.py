"""The rollouts of one training step: bound to its blocks, noise and condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from salt_zoo.core.networks.blocks import ExitStep, Renoise, RolloutPath
from salt_zoo.core.protocols import TrainStep, VelocityNetwork
from salt_zoo.rollout.sampler import initial_noise, iter_rollout, renoise_from, replay

#: The loss of a whole generated video `[B, C, F, H, W]`, a scalar; None where none is due.
VideoLoss = Callable[[Tensor], Tensor | None]
#: The loss of one block's exit step, likewise; its share is the block's part of all frames.
ExitLoss = Callable[[ExitStep, float], Tensor | None]


@dataclass(frozen=True)
class BoundRollout:
    """Rollouts of networks along one path, all from the step's own noise and prompts.

    `backward` is backward simulation (arXiv 2405.14867, section 4.5; 2506.08009, Algorithm 1) for
    videos of any length.
    """

    step: TrainStep
    path: RolloutPath

    @property
    def noise(self) -> Tensor:
        """What the rollout starts from, `[B, C, F, H, W]`."""
        return initial_noise(self.step.rng, self.step.blocks, self.step.latent_shape)

    @cached_property
    def renoise(self) -> Renoise:
        return renoise_from(self.step.rng, self.step.blocks, self.step.latent_shape)

    def video(self, network: VelocityNetwork) -> Tensor:
        """The generated video `[B, C, F, H, W]`, without gradient."""
        return torch.cat([exit.x0 for exit in self.exits(network)], dim=2).detach()

    def exits(self, network: VelocityNetwork, *, gradient: bool = False) -> Iterator[ExitStep]:
        """The exit step of each block, in order; see `iter_rollout`."""
        return iter_rollout(
            network,
            self.noise,
            self.step.batch.condition,
            self.path.times,
            blocks=self.step.blocks,
            renoise=self.renoise,
            exit_step=self.path.exit_step,
            sampler=self.path.sampler,
            gradient=gradient,
        )

    def backward(
        self, network: VelocityNetwork, video_loss: VideoLoss, exit_loss: ExitLoss
    ) -> Tensor:
        """Generate, and hand the gradients of both losses to `step.backward`; returns the video.

        A video in several blocks is generated without gradient, and its blocks are run again one by
        one: only one block's graph exists at a time, however long the video is. That is exact,
        because no gradient flows through the memory. It costs one more pass and one more memory
        write a block.
        """
        if len(self.step.blocks.split(self.step.latent_shape[1])) == 1:
            (exit,) = self.exits(network, gradient=True)
            self.step.backward(_sum(exit.x0, video_loss(exit.x0), exit_loss(exit, 1.0)))
            return exit.x0
        finished = [replace(exit, memory=None) for exit in self.exits(network)]
        video = torch.cat([exit.x0 for exit in finished], dim=2).requires_grad_()
        (gradient,) = torch.autograd.grad(_sum(video, video_loss(video)), video)
        for exit in replay(network, finished, self.step.blocks, self.renoise):
            share = (exit.frames.stop - exit.frames.start) / self.step.latent_shape[1]
            own = _sum(exit.x0, exit_loss(exit, share))
            self.step.backward((gradient[:, :, exit.frames] * exit.x0).sum() + share * own)
        return video


def _sum(output: Tensor, *losses: Tensor | None) -> Tensor:
    """The sum of those that are due; of none a loss whose gradient is 0."""
    due = [loss for loss in losses if loss is not None]
    return torch.stack(due).sum() if due else 0 * output.sum()
