"""A plugin with the backbone and the data set `toy-blocks`: the smallest autoregressive model.

Its memory is the list of the finished blocks' means. The network writes down what is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from salt_zoo import hookimpl
from salt_zoo.core import flow
from salt_zoo.core.base.rng import KeyedRNG, seed_torch
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.protocols import BackboneDefaults, Condition, Sample

CHANNELS, FRAMES, SIZE, BLOCK = 2, 6, 2, 2
PROMPTS = ["one", "two"]


@dataclass
class Means:
    """What the toy remembers: `[B, C]` for each finished block."""

    rows: int
    blocks: list[Tensor] = field(default_factory=list)
    slots: int | None = None
    limit: int | None = None

    def bytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)

    def switch(self, recent: Sequence[Tensor], update_cache: Callable[[Tensor], None]) -> None:
        pass

    def distance(self, other: Means) -> Tensor:
        mine, its = (torch.stack(one.blocks, dim=1).flatten(1) for one in (self, other))
        return ((mine - its).norm(dim=1) / its.norm(dim=1))[:, None]  # its one layer


def number(t: Tensor) -> float:
    """The first time; the tensors of plans have no data."""
    plain = type(t) is Tensor and t.device.type != "meta"
    return float(t.flatten()[0]) if plain else float("nan")


class ToyNetwork(nn.Module):
    """`v = mix(x) + gain * t + text(condition) + look(mean of the memory)`."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(CHANNELS, CHANNELS)
        self.look = nn.Linear(CHANNELS, CHANNELS)
        self.write = nn.Linear(CHANNELS, CHANNELS)
        self.text = nn.Linear(len(PROMPTS) + 1, CHANNELS)
        self.gain = nn.Parameter(torch.randn(CHANNELS))
        #: (what, frames, t, blocks in memory) of every call.
        self.calls: list[tuple[str, int, float, int | None]] = []

    def forward(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor], memory: Means | None = None
    ) -> Tensor:
        known = None if memory is None else len(memory.blocks)
        self.calls.append(("forward", x.shape[2], number(t), known))
        offset = self.text(condition["which"])
        if memory is not None and memory.blocks:
            assert memory.rows == len(x), "a memory belongs to its batch"
            offset = offset + self.look(torch.stack(memory.blocks).mean(dim=0))
        offset = offset[:, :, None, None, None] + self.gain.view(-1, 1, 1, 1) * flow.at(t, x)
        return self.mix(x.movedim(1, -1)).movedim(-1, 1) + offset

    def features(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor], depth: float
    ) -> Tensor:
        """The velocity's pixels as tokens: `[B, F * H * W, C]`."""
        return self(x, t, condition).flatten(2).transpose(1, 2)

    def update_cache(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor], memory: Means
    ) -> None:
        self.calls.append(("update_cache", x.shape[2], number(t), len(memory.blocks)))
        memory.blocks.append(self.write(x.mean(dim=(2, 3, 4))))


class ToyBackbone(BackboneDefaults):
    """Three blocks of two frames."""

    version = 1  # without one, each run would digest all files of the tests
    latent_shape = (CHANNELS, FRAMES, SIZE, SIZE)
    frame_rate = 1.0
    guidance_scale = 1.0

    def __init__(self, config: Any, zoo: Any) -> None:
        self.device: Any = "cpu"

    def to(self, device: Any) -> ToyBackbone:
        self.device = device
        return self

    def network(self, start: Literal["teacher", "student", "random"]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            seed_torch(0)
            return ToyNetwork()

    def blocks(self, network: Any = None) -> Blocks:
        return Blocks(BLOCK, new_memory=lambda network, x: Means(len(x)))

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        index = torch.tensor([["", *PROMPTS].index(prompt) for prompt in prompts])
        return {"which": torch.eye(len(PROMPTS) + 1)[index].to(self.device)}

    def encode_video(self, video: Tensor) -> Tensor:
        return video

    def decode_video(self, latents: Tensor) -> Tensor:
        return latents

    def save(self, network: nn.Module, folder: Path) -> None:
        save_file(network.state_dict(), folder / "toy.safetensors")

    def load(self, folder: Path) -> nn.Module:
        network = ToyNetwork()
        network.load_state_dict(load_file(folder / "toy.safetensors"))
        return network.to(self.device)

    def fingerprint(self) -> dict[str, str]:
        return {"toy-blocks": "0"}


class ToyData:
    version = 1

    def __init__(self, config: Any, zoo: Any) -> None:
        pass

    def prompts(self, split: str) -> list[str]:
        return PROMPTS

    def sample(self, rng: KeyedRNG, split: str, videos: bool = True) -> Sample:
        prompts = [PROMPTS[row % 2] for row in rng.rows]
        return Sample(prompts, self.real(prompts, rng, split) if videos else None)

    def real(
        self, prompts: Sequence[str], rng: KeyedRNG, split: str, frames: int | None = None
    ) -> Tensor:
        one = (CHANNELS, SIZE, SIZE)
        return torch.stack([rng.randn(one, "video", i) for i in range(frames or FRAMES)], dim=2)

    def fingerprint(self) -> dict[str, str]:
        return {}


@hookimpl
def register(zoo):
    zoo.backbones.add("toy-blocks", ToyBackbone, "an autoregressive toy, for tests")
    zoo.datasets.add("toy-blocks", ToyData, "noise, for tests")
