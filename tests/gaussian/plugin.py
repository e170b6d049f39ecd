"""A plugin with the backbone and the data set `gaussian`, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from salt_zoo import hookimpl
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.protocols import BackboneDefaults, Condition, Sample
from tests.gaussian import closed_form
from tests.gaussian.networks import AffineNetwork, GaussianNetwork, TransportNetwork

MEANS = {"left": (-0.8, 0.3), "right": (0.9, 0.6), "": (0.1, -0.2)}
COVARIANCES = {
    "diagonal": ((0.49, 0.0), (0.0, 0.16)),
    "full": ((0.49, 0.18), (0.18, 0.25)),
}


def means(dtype: torch.dtype = torch.float32) -> Tensor:
    """`[prompts, D]`; the last is the unconditional one."""
    return torch.tensor(list(MEANS.values()), dtype=dtype)


def covariance(name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(COVARIANCES[name], dtype=dtype)


class GaussianConfig(StrictModel):
    covariance: Literal["diagonal", "full"] = "full"
    student: Literal["affine", "transport"] = "affine"
    #: Places of the student's time axis at which it can take any affine form.
    nodes: int = 8
    timestep_shift: float = 5.0


class GaussianBackbone(BackboneDefaults):
    """Teacher: the exact velocity. Student: affine, first equal to it. Random: another Gaussian."""

    Config = GaussianConfig
    version = 1  # without one, each run would digest all files of the tests
    latent_shape = (2, 1, 8, 8)
    frame_rate = 1.0
    guidance_scale = 1.0

    def __init__(self, config: GaussianConfig, zoo: Any) -> None:
        self.config = config
        self.device: Any = "cpu"

    def to(self, device: Any) -> GaussianBackbone:
        self.device = device
        return self

    def network(self, start: Literal["teacher", "student", "random"]) -> nn.Module:
        wanted = covariance(self.config.covariance)
        if start == "student" and self.config.student == "transport":
            return TransportNetwork(means())
        if start == "student":
            return AffineNetwork(means(), wanted, self.config.nodes, self.config.timestep_shift)
        if start == "random":
            return GaussianNetwork(torch.zeros_like(means()), torch.eye(2))
        return GaussianNetwork(means(), wanted)

    def blocks(self, network: Any = None) -> Blocks:
        return Blocks()

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        index = torch.tensor([list(MEANS).index(prompt) for prompt in prompts])
        return {"which": torch.eye(len(MEANS))[index].to(self.device)}

    def encode_video(self, video: Tensor) -> Tensor:
        return video

    def decode_video(self, latents: Tensor) -> Tensor:
        return latents

    def save(self, network: nn.Module, folder: Path) -> None:
        save_file(network.state_dict(), folder / "gaussian.safetensors")

    def load(self, folder: Path) -> nn.Module:
        network = self.network("student")
        network.load_state_dict(load_file(folder / "gaussian.safetensors"))
        return network

    def fingerprint(self) -> dict[str, str]:
        return {"gaussian": self.config.covariance}


class GaussianData:
    """Draws of the Gaussian of a prompt; "" is no prompt of the data."""

    Config = GaussianConfig
    version = 1

    def __init__(self, config: GaussianConfig, zoo: Any) -> None:
        self.root = closed_form.root(covariance(config.covariance))

    def prompts(self, split: str) -> list[str]:
        return [prompt for prompt in MEANS if prompt]

    def sample(self, rng: KeyedRNG, split: str, videos: bool = True) -> Sample:
        known = self.prompts(split)
        prompts = [known[row % len(known)] for row in rng.rows]
        return Sample(prompts, self.real(prompts, rng, split) if videos else None)

    def real(self, prompts: Sequence[str], rng: KeyedRNG, split: str) -> Tensor:
        mean = torch.tensor([MEANS[prompt] for prompt in prompts])[:, :, None, None, None]
        noise = rng.randn(GaussianBackbone.latent_shape, "places")
        return mean + torch.einsum("de,befhw->bdfhw", self.root, noise)

    def fingerprint(self) -> dict[str, str]:
        return {}


@hookimpl
def register(zoo):
    zoo.backbones.add("gaussian", GaussianBackbone, "closed-form Gaussians, for tests")
    zoo.datasets.add("gaussian", GaussianData, "closed-form Gaussians, for tests")
