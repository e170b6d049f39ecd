"""A velocity network around diffusers' own `WanTransformer3DModel`; no copy of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from einops import repeat
from torch import Tensor, nn

from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.protocols import AttentionUse, Condition, Memory
from salt_zoo_wan.transformer.attention_backends import (
    NATIVE,
    find_backend,
    try_backend,
    use_backend,
)
from salt_zoo_wan.transformer.first_frame import (
    image_tokens,
    leave_first,
    places_of_first,
    put_first,
    with_channels,
)
from salt_zoo_wan.transformer.prompt_cache import MAX_TOKENS
from salt_zoo_wan.transformer.sequence import check_shares, share_sequence


class WanNetwork(nn.Module):
    """Wan 2.1 (arXiv 2503.20314) as `v(x, t, condition, memory)`.

    Args:
        transformer: the diffusers model.
        coordinates: cosine channels per axis, concatenated to the noisy input. Wan's rotary
            positions are relative, so that a tiny model cannot see the borders of the picture;
            0 for the published models. With n > 0 the transformer has `C + 1 + 3n` input channels.
    """

    def __init__(self, transformer: WanTransformer3DModel, coordinates: int = 0) -> None:
        super().__init__()
        self.transformer = transformer
        self.coordinates = coordinates
        self._channels: dict[tuple[object, ...], Tensor] = {}
        #: The processes that make its passes together; None where each makes its own.
        self.sequence: SequenceGroup | None = None
        use_backend(transformer, NATIVE)  # else diffusers would take it from the environment

    @property
    def tokens_per_frame(self) -> tuple[int, int]:
        """Patch height and width: a frame of `H x W` latents has `H/h * W/w` tokens."""
        config: Any = self.transformer.config
        _, height, width = config.patch_size
        return height, width

    def forward(
        self, x: Tensor, t: Tensor, condition: Condition, memory: Memory | None = None
    ) -> Tensor:
        """The velocity `[B, C, F, H, W]` at `x` and times `t` (`[B]` or `[B, F]`, in [0, 1])."""
        if memory is not None:
            raise TypeError("a bidirectional Wan has no memory; the backbone 'self-forcing' has")
        if "image" in condition and condition["text"].shape[1] != MAX_TOKENS:
            raise ValueError(f"diffusers takes {MAX_TOKENS} tokens of text where there is an image")
        return self.transform(x, t, condition)

    def transform(
        self, x: Tensor, t: Tensor, condition: Condition, first: int = 0, copies: int = 1
    ) -> Tensor:
        """The transformer's velocity at the frames of a video from `first` on; `copies`: they are
        there so many times, one after the other."""
        places = places_of_first(x, condition, first, copies)
        given, times = put_first(x, t, condition, places)
        v: Tensor = self.transformer(
            self.with_coordinates(with_channels(given, condition, first, copies)),
            self.timestep(x, times),
            condition["text"].to(x.dtype),
            image_tokens(condition, x.dtype),
            return_dict=False,
        )[0]
        return leave_first(v, x, t, condition, places)

    def features(self, x: Tensor, t: Tensor, condition: Condition, depth: float) -> Tensor:
        """Hidden states `[B, F*S, D]` after one transformer block: 0.5 is index 20 of 40, counted
        from 0, which Salt uses (arXiv 2604.03118)."""
        model: Any = self.transformer
        blocks = model.blocks
        index = min(len(blocks) - 1, int(depth * len(blocks) + 1e-6))  # 15 / 22 * 22 is below 15
        kept: list[Tensor] = []
        hook = blocks[index].register_forward_hook(
            lambda module, inputs, output: kept.append(
                output if self.sequence is None else self.sequence.all_tokens(output)
            )
        )
        model.blocks = blocks[: index + 1]  # nothing reads what the later ones would make
        try:
            self(x, t, condition)
        finally:
            model.blocks = blocks
            hook.remove()
        # a causal network may go through its blocks of frames in turn, each passed, then remembered
        return kept[0] if len(kept) == 1 else torch.cat(kept[::2], dim=1)

    def shard_units(self) -> Iterator[nn.Module]:
        """The embeddings and each transformer block; the backward pass that starts from a block's
        output (`features`) reaches the embeddings without the root."""
        model: Any = self.transformer
        yield model.patch_embedding
        yield model.condition_embedder
        yield from model.blocks

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each transformer block in the backward pass instead of keeping its insides."""
        self.transformer.enable_gradient_checkpointing()

    def enable_sequence_parallelism(self, group: SequenceGroup, shape: Sequence[int]) -> None:
        """Share the tokens and the heads of every pass over `group`; `shape` is that of videos."""
        height, width = self.tokens_per_frame
        _, frames, rows, columns = shape
        a_frame = (rows // height) * (columns // width)
        tokens = [a_frame * count for count in self.frames_of_passes(frames)]
        check_shares(self.transformer, tokens, group.size)
        share_sequence(self.transformer, group)
        self.sequence = group

    def choose_attention(self, backend: str, use: AttentionUse | None) -> None:
        """By diffusers' name, see `attention_backends`."""
        chosen = find_backend(backend)
        config: Any = self.transformer.config
        if use is not None:
            try_backend(chosen, config.num_attention_heads, config.attention_head_dim, use)
            use_backend(self.transformer, chosen)

    def frames_of_passes(self, frames: int) -> list[int]:
        """The lengths of passes over parts of a video of `frames` frames."""
        return [frames]

    def timestep(self, x: Tensor, t: Tensor) -> Tensor:
        """`1000 * t`, one a video or, from `[B, F]`, one a token, as diffusers wants it: of those
        that are this process's own."""
        if t.ndim == 1:
            return 1000.0 * (t if self.sequence is None else self.sequence.given_whole(t))
        height, width = self.tokens_per_frame
        tokens = (x.shape[3] // height) * (x.shape[4] // width)
        if self.sequence is None:
            return repeat(1000.0 * t, "b f -> b (f tokens)", tokens=tokens)
        whole = repeat(self.sequence.given_whole(t), "b f -> b (f tokens)", tokens=tokens)
        return 1000.0 * self.sequence.own_tokens(whole, 1)

    def with_coordinates(self, x: Tensor) -> Tensor:
        if not self.coordinates:
            return x
        key = (*x.shape[2:], x.dtype, x.device)
        if key not in self._channels:
            self._channels[key] = coordinate_channels(x.shape[2:], self.coordinates).to(x)
        channels = self._channels[key]
        return torch.cat([x, channels.expand(x.shape[0], -1, -1, -1, -1)], dim=1)


def coordinate_channels(shape: torch.Size, count: int) -> Tensor:
    """A constant and `count` cosines each of frame, row, column: `[1, 1 + 3*count, F, H, W]`."""
    channels = [torch.ones(shape)]
    for axis, length in enumerate(shape):
        place = (torch.arange(length) + 0.5) / length
        view = [1, 1, 1]
        view[axis] = length
        for k in range(1, count + 1):
            channels.append(torch.cos(math.pi * k * place).view(view).expand(shape))
    return torch.stack(channels)[None]
