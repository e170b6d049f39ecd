"""How a Wan is told the first frame of its video: channels beside the noisy latents and tokens of
an image encoder (Wan 2.1 image-to-video), or clean latents in place of the first frame's (Wan 2.2
5 B). Without an image in the condition nothing here changes anything."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor

from salt_zoo.core.protocols import Condition


def masked_channels(latents: Tensor) -> Tensor:
    """`[B, 4 + C, F, h, w]`: 1 in the four channels of the first frame, which is given, then the
    latents `[B, C, F, h, w]` of a video of that frame and grey ones.

    Four, as Wan's VAE makes one latent frame of four, as `WanImageToVideoPipeline` does.
    """
    mask = torch.zeros_like(latents[:, :1]).repeat(1, 4, 1, 1, 1)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def with_channels(x: Tensor, condition: Condition, first: int, copies: int) -> Tensor:
    """`x` and beside it the condition's `channels` for its frames, those from `first` on, `copies`
    times one after the other."""
    if "channels" not in condition:
        return x
    channels = frames_of(condition["channels"], first, x.shape[2] // copies)
    return torch.cat([x, torch.cat([channels] * copies, dim=2).to(x.dtype)], dim=1)


def frames_of(channels: Tensor, first: int, count: int) -> Tensor:
    """`count` frames of `[B, C, F, h, w]` from `first` on; beyond its end the last one again, which
    is what the VAE makes of grey frames without end."""
    found = channels[:, :, first : first + count]
    missing = count - found.shape[2]
    if not missing:
        return found
    return torch.cat([found, channels[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)


def image_tokens(condition: Condition, dtype: torch.dtype) -> Tensor | None:
    """The image encoder's states `[B, tokens, image_dim]`."""
    return condition["image"].to(dtype) if "image" in condition else None


def places_of_first(x: Tensor, condition: Condition, first: int, copies: int) -> list[int]:
    """Where among the frames of `x` the first one of the video is, whose latents are given."""
    if "first" not in condition or first:
        return []
    return [copy * (x.shape[2] // copies) for copy in range(copies)]


def put_first(
    x: Tensor, t: Tensor, condition: Condition, places: list[int]
) -> tuple[Tensor, Tensor]:
    """`x` with the given latents at `places`, and times `[B, F]` that are 0 there."""
    if not places:
        return x, t
    times = repeat(t, "b -> b f", f=x.shape[2]) if t.ndim == 1 else t
    given, now = condition["first"].to(x.dtype), torch.zeros_like(times[:, :1])
    return _replaced(x, places, given, dim=2), _replaced(times, places, now, dim=1)


def leave_first(v: Tensor, x: Tensor, t: Tensor, condition: Condition, places: list[int]) -> Tensor:
    """`v` whose clean estimate `x - t * v` at `places` is the given latents; 0 at t = 0."""
    for place in places:
        noisy = x[:, :, place : place + 1]
        time = (t if t.ndim == 1 else t[:, place]).view(-1, 1, 1, 1, 1)
        away = (noisy - condition["first"].to(x.dtype)) / time.clamp(min=1e-12)
        v = _replaced(v, [place], torch.where(time > 0, away, torch.zeros_like(away)), dim=2)
    return v


def _replaced(whole: Tensor, places: list[int], part: Tensor, dim: int) -> Tensor:
    """`whole` with `part`, one along `dim`, at each of the rising places."""
    parts, done = [], 0
    for place in places:
        parts += [whole.narrow(dim, done, place - done), part]
        done = place + 1
    parts.append(whole.narrow(dim, done, whole.shape[dim] - done))
    return torch.cat(parts, dim=dim)
