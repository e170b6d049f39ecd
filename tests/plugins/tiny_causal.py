"""A causal Wan so small that a pass takes milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from salt_zoo.core.networks.blocks import Blocks
from salt_zoo_self_forcing.memories.block_relative import (
    BlockRelativeMemory,
    BlockRelativeMemoryConfig,
)
from salt_zoo_self_forcing.memories.ema_sink import EmaSinkMemory, EmaSinkMemoryConfig
from salt_zoo_self_forcing.memories.full import FullMemory, FullMemoryConfig
from salt_zoo_self_forcing.memories.window import WindowMemory, WindowMemoryConfig
from salt_zoo_self_forcing.memories.window_int8 import WindowInt8Memory
from salt_zoo_self_forcing.transformer.network import CausalWanNetwork

CHANNELS, SIZE = 4, 4
MEMORIES: dict[str, tuple[Any, Any]] = {
    "full": (FullMemory, FullMemoryConfig),
    "window": (WindowMemory, WindowMemoryConfig),
    "window-int8": (WindowInt8Memory, WindowMemoryConfig),
    "block-relative": (BlockRelativeMemory, BlockRelativeMemoryConfig),
    "ema-sink": (EmaSinkMemory, EmaSinkMemoryConfig),
}


def policy(name: str, **options: Any) -> Any:
    kind, config = MEMORIES[name]
    return kind(config(**options), None)


def transformer(seed: int = 0) -> WanTransformer3DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            text_dim=6,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=64,
        )
    return model.eval()


def network(
    memory: Any = None, frames: int | None = 2, first: int | None = None, **blocks: Any
) -> CausalWanNetwork:
    parts = Blocks(frames, first, new_memory=lambda net, x: net.new_memory(x), **blocks)
    made = CausalWanNetwork(transformer(), 0, parts, memory or policy("full"))
    return made.requires_grad_(False)


def video(frames: int, seed: int = 1, rows: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, CHANNELS, frames, SIZE, SIZE, generator=generator)


def prompt(seed: int = 2, rows: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"text": torch.randn(rows, 3, 6, generator=generator)}


def at(t: float, rows: int = 2) -> torch.Tensor:
    return torch.full((rows,), t)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).detach().norm() / wanted.detach().norm())
