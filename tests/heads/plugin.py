"""A plugin with the objective `critic`: every kind of role that an objective can have, and a state.

Its critic sees latents `[B, C, F, H, W]`, so that it fits every backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from salt_zoo import hookimpl
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.networks.blocks import ExitStep, RolloutPath
from salt_zoo.core.protocols import Backbone, NetworkSpec, TrainStep


class Config(StrictModel):
    weight: float = 0.3
    learning_rate: float = 1e-2


class CriticNetwork(nn.Module):
    """A logit a video. Two of its layers share a weight; its norm has statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels)
        self.enter, self.again = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.again.weight = self.enter.weight
        self.leave = nn.Linear(channels, 1)

    def forward(self, *, video: Tensor) -> dict[str, Tensor]:
        hidden = self.enter(self.norm(video).movedim(1, -1))
        hidden = self.again(torch.tanh(hidden))
        return {"logit": self.leave(torch.tanh(hidden)).mean(dim=(1, 2, 3, 4))}


class Critic:
    """Its term is divided by the running mean of the critic's loss."""

    version = 1
    Config = Config
    needs_data = True

    def __init__(self, config: Config, zoo: Any) -> None:
        self.weight, self.rate = config.weight, config.learning_rate
        self.running = torch.ones(())
        self.updates = 0

    def roles(self) -> Mapping[str, NetworkSpec]:
        return {
            "critic": NetworkSpec(factory=self.network, learning_rate=self.rate),
            "critic_mean": NetworkSpec(ema_of="critic", decay=0.5),
            "lens": NetworkSpec(factory=self.lens),
        }

    def network(self, backbone: Backbone) -> nn.Module:
        return CriticNetwork(backbone.latent_shape[0])

    def lens(self, backbone: Backbone) -> nn.Module:
        channels = backbone.latent_shape[0]
        return nn.Sequential(nn.Conv3d(channels, channels, 1), nn.Dropout(0.5))

    def on_exit(self, exit: ExitStep, path: RolloutPath, step: TrainStep) -> None:
        return None

    def on_video(self, video: Tensor, path: RolloutPath, step: TrainStep) -> Tensor:
        seen = step.networks["lens"](video)
        logit = step.networks["critic_mean"](video=seen)["logit"]
        return softplus(-logit).mean() / self.running.to(video.device)

    def on_generated(self, video: Tensor, step: TrainStep) -> Tensor:
        assert step.batch.x0 is not None and not video.requires_grad
        both = step.networks["lens"](torch.cat([video, step.batch.x0]))
        fake, real = step.networks["critic"](video=both)["logit"].chunk(2)
        loss = (softplus(fake) + softplus(-real)).mean()
        self.running = 0.8 * self.running.to(loss.device) + 0.2 * loss.detach()
        self.updates += 1
        return loss

    def state_dict(self) -> Mapping[str, Any]:
        return {"running": self.running, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.running, self.updates = state["running"], state["updates"]


@hookimpl
def register(zoo):
    zoo.objectives.add("critic", Critic, "a critic on latents, for tests")
