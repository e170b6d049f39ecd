"""A causal Wan: diffusers' own `WanTransformer3DModel` with a memory; no copy of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from einops import repeat
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.networks.precision import compute_dtype
from salt_zoo.core.protocols import Condition
from salt_zoo_self_forcing.cache import CacheShape, KVCache, NeedsAllHeads, Policy, new_cache
from salt_zoo_self_forcing.masks import TokenMask, frame_mask
from salt_zoo_self_forcing.transformer.attention import CrossAttention, Pass, Rope, SelfAttention
from salt_zoo_self_forcing.transformer.positions import rotary_table
from salt_zoo_wan.transformer.network import WanNetwork, coordinate_channels


class CausalWanNetwork(WanNetwork):
    """Wan as `v(x, t, condition, memory)` that generates block by block (arXiv 2506.08009,
    Algorithm 1; CausVid, arXiv 2412.07772, Algorithm 2).

    With a memory, `x` is the next block. Without one, `x` is a video whose blocks see themselves
    and the blocks before them, as noisy as they are (diffusion forcing's mask).

    Args:
        transformer: the diffusers model; its attention processors and `rope` are replaced.
        coordinates: as in `WanNetwork`, but the frames' channels are 0: a stream has no length.
        blocks: in which blocks of frames it generates.
        policy: what its memory keeps.
    """

    def __init__(
        self, transformer: WanTransformer3DModel, coordinates: int, blocks: Blocks, policy: Policy
    ) -> None:
        super().__init__(transformer, coordinates)
        self.partition, self.policy = blocks, policy
        model: Any = transformer
        model.rope = self._rope = Rope()
        for layer, block in enumerate(model.blocks):
            beside = SelfAttention(layer)
            block.attn1.set_processor(beside)
            block.attn2.set_processor(CrossAttention(beside))
        self._known: dict[Any, Any] = {}

    def new_memory(self, x: Tensor) -> KVCache:
        """An empty memory for videos like `x` `[B, C, F, H, W]`, for up to F frames where it keeps
        all of them."""
        config: Any = self.transformer.config
        rows, columns = self._grid(x)
        shape = CacheShape(
            rows=x.shape[0],
            layers=config.num_layers,
            heads=config.num_attention_heads // (self.sequence.size if self.sequence else 1),
            width=config.attention_head_dim,
            tokens=rows * columns,
            dtype=compute_dtype(self, x.device.type),
            device=x.device,
        )
        return new_cache(self.policy, shape, x.shape[2], self.sequence)

    def enable_sequence_parallelism(self, group: SequenceGroup, shape: Sequence[int]) -> None:
        """As `WanNetwork`'s; each process remembers its heads."""
        if isinstance(self.policy, NeedsAllHeads):
            raise ZooError(
                f"execution.sequence: the memory cannot be shared by {group.size} processes: "
                f"{self.policy.needs_all_heads}; write 1, or choose another backbone.memory"
            )
        super().enable_sequence_parallelism(group, shape)

    def frames_of_passes(self, frames: int) -> list[int]:
        return [part.stop - part.start for part in self.partition.split(frames)]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        condition: Condition,
        memory: Any = None,
        *,
        clean_copy: bool = False,
    ) -> Tensor:
        """The velocity `[B, C, F, H, W]` at `x` and times `t` (`[B]` or `[B, F]`, in [0, 1]).

        `clean_copy`: the first half of the frames are the clean video of the second half.
        """
        first, copies = 0, 2 if clean_copy else 1
        if memory is not None:
            run = replace(self._next(x, memory), memory=memory, prompt=condition)
            first = memory.frame
        elif (whole := self._whole(x, clean_copy)) is not None:
            run = whole
        else:
            return self._in_turn(x, t, condition)
        if "image" in condition:
            run = replace(run, images=condition["image"].shape[1])
        self._rope.run = run
        try:
            return self.transform(x, t, condition, first, copies)
        finally:
            self._rope.run = None  # it holds the memory

    def compile(self, *arguments: Any, **options: Any) -> None:
        """`torch.compile` the transformer in place, as `nn.Module.compile` does.

        Attention stays as it is: its slots, positions and memory change with every block, and each
        change would be compiled anew.
        """
        model: Any = self.transformer
        for block in model.blocks:
            for attention in (block.attn1, block.attn2):
                attention.set_processor(torch.compiler.disable(attention.processor.__call__))
        model.compile(*arguments, **options)

    def _in_turn(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The pass over noisy blocks where no mask can say what they see: each is remembered as it
        is. Twice the passes, and no gradient through the past."""
        memory, found = self.new_memory(x), []
        for frames in self.partition.split(x.shape[2]):
            part, its = x[:, :, frames], t if t.ndim == 1 else t[:, frames]
            found.append(self.forward(part, its, condition, memory))
            self.update_cache(part, its, condition, memory)
        return torch.cat(found, dim=2)

    @torch.no_grad()
    def update_cache(self, x: Tensor, t: Tensor, condition: Condition, memory: KVCache) -> None:
        """Commit a finished block: one pass whose keys and values stay; no gradient."""
        self(x, t, condition, memory)
        memory.commit(x.shape[2])

    def can_mask(self, frames: int) -> bool:
        """Whether a video of so many frames can be passed without a memory: not where the memory's
        positions are relative and the video is longer than it keeps."""
        return self.policy.span(frames) is not None

    def forward_masked(
        self,
        x: Tensor,
        t: Tensor,
        x0: Tensor,
        condition: Condition,
        clean_t: Tensor | None = None,
    ) -> Tensor | None:
        """The velocity of every noisy block of `x` given the clean blocks before it, in one pass.

        The clean copy is seen at time 0, or at `clean_t` (shaped like `t`) where it is noised a
        little itself, and carries gradient (teacher forcing, arXiv 2602.02214, stage 1). None where
        the memory's positions are relative and the video is longer than it keeps.
        """
        if self.policy.span(x.shape[2]) is None:
            return None
        frames = x.shape[2]
        past = torch.zeros_like(t) if clean_t is None else clean_t
        each = [repeat(s, "b -> b f", f=frames) if s.ndim == 1 else s for s in (past, t)]
        both = torch.cat([x0, x], dim=2)
        return self(both, torch.cat(each, dim=1), condition, clean_copy=True)[:, :, frames:]

    def with_coordinates(self, x: Tensor) -> Tensor:
        if not self.coordinates:
            return x
        key = (x.shape, x.dtype, x.device)
        if key not in self._known:
            one = coordinate_channels(torch.Size((1, *x.shape[3:])), self.coordinates)
            one[:, 1 : 1 + self.coordinates] = 0  # the frame's
            self._known[key] = one.to(x).expand(x.shape[0], -1, x.shape[2], -1, -1)
        channels: Tensor = self._known[key]
        return torch.cat([x, channels], dim=1)

    def _grid(self, x: Tensor) -> tuple[int, int]:
        height, width = self.tokens_per_frame
        return x.shape[3] // height, x.shape[4] // width

    def _table(self, frames: list[int], x: Tensor) -> tuple[Tensor, Tensor]:
        config: Any = self.transformer.config
        return rotary_table(frames, *self._grid(x), config.attention_head_dim, x.device)

    def _next(self, x: Tensor, memory: KVCache) -> Pass:
        """The pass over the next block; worked out once for all its denoising steps."""
        key = (memory.version, tuple(x.shape))
        if memory.plan is None or memory.plan[0] != key:
            placement = memory.policy.place(memory, x.shape[2])
            memory.plan = (
                key,
                Pass(
                    queries=self._table(placement.positions, x),
                    own=memory.rows(placement.slots),
                    used=placement.used,
                    keys=None if placement.keys is None else self._table(placement.keys, x),
                    version=memory.version,
                ),
            )
        plan: Pass = memory.plan[1]
        return plan

    def _whole(self, x: Tensor, clean_copy: bool) -> Pass | None:
        """The pass over all blocks of a video; None where no mask can say what they see."""
        key = (clean_copy, tuple(x.shape[2:]), x.device)
        if key not in self._known:
            frames = x.shape[2] // 2 if clean_copy else x.shape[2]
            parts = self.partition.split(frames)
            span = self.policy.span(frames)
            if span is None:
                return None
            mask = None
            with torch.inference_mode(False):  # training may follow
                if clean_copy or len(parts) > 1:
                    sees = frame_mask(parts, span, clean_copy).to(x.device)
                    rows, columns = self._grid(x)
                    mask = TokenMask(sees, rows * columns)
                table = self._table([*range(frames)] * (2 if clean_copy else 1), x)
            self._known[key] = Pass(table, mask)
        whole: Pass = self._known[key]
        return whole
