"""A tiny decoder in place of the VAE's, of TAEHV's structure (github.com/madebyollin/taehv).

Some 10 M parameters decode frames from a latent frame and a memory of the one before it. The
structure is the one that TAEHV's authors publish weights for; those of LightX2V have it, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo_wan.checkpoint.read import read_tensors

#: By stage, how many frames it makes of one; each stage doubles height and width.
GROWTH = (1, 2, 2)
#: Frames of one latent frame. The first latent frame is one frame, the last of its four.
FRAMES = 4
#: The convolutions whose weights tell the channels of the three stages and of the end.
_WIDTHS = tuple(f"decoder.{place}.weight" for place in (1, 8, 14, 20))
_WHERE = "backbone.options.tiny_decoder"
_RIGHT = "taew2_1 is for Wan 2.1 and for 2.2's A14B, taew2_2 for Wan 2.2's 5 B"


class MemoryBlock(nn.Module):
    """A residual block that sees a frame and, beside it, the same of the frame before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, frames: Tensor, before: Tensor) -> Tensor:
        """Both `[F, width, h, w]`; `before` is one frame earlier."""
        change: Tensor = self.conv(torch.cat([frames, before], dim=1))
        return functional.relu(change + frames)


class Growth(nn.Module):
    """Makes `factor` frames of each: `[F, width, h, w]` to `[factor * F, width, h, w]`."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, factor * width, 1, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        return self.conv(frames).reshape(-1, *frames.shape[1:])


class SoftClamp(nn.Module):
    """Latents softly bounded to [-3, 3]."""

    def forward(self, latents: Tensor) -> Tensor:
        return 3 * torch.tanh(latents / 3)


class TinyDecoder(nn.Module):
    """One latent frame to four frames. Its tensors have the names of the published files.

    Args:
        channels: of the latents.
        widths: channels of the three stages and of the end.
        patch: height and width of the pixels that one place of the last layer makes.
        denormalise: whether it was trained on latents of the VAE's own mean and deviation, not on
            those of unit variance that a transformer makes.
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...], patch: int, denormalise: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [SoftClamp(), _conv(channels, widths[0]), nn.ReLU()]
        for (width, after), factor in zip(pairwise(widths), GROWTH, strict=True):
            layers += [MemoryBlock(width) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=2), Growth(width, factor)]
            layers += [_conv(width, after, bias=False)]
        layers += [nn.ReLU(), _conv(widths[-1], 3 * patch**2)]
        self.decoder = nn.Sequential(*layers)
        self.patch, self.denormalise = patch, denormalise

    def forward(self, latent: Tensor, memory: dict[int, Tensor]) -> Tensor:
        """The next latent frame `[1, C, h, w]` to pixels in [0, 1], `[4, 3, 8p h, 8p w]`.

        Args:
            memory: by layer, what it saw last; empty before the first frame. It is brought forward.
        """
        hidden = latent
        for place, layer in enumerate(self.decoder):
            if isinstance(layer, MemoryBlock):
                last = memory[place] if place in memory else torch.zeros_like(hidden[:1])
                memory[place] = hidden[-1:]
                hidden = layer(hidden, torch.cat([last, hidden[:-1]]))
            else:
                hidden = layer(hidden)
        return functional.pixel_shuffle(hidden, self.patch).clamp(0, 1)


class TinyFrameDecoder:
    """The tiny decoder with what it remembers of each video; one for each stream.

    It goes latent frame by latent frame, so that blocks of a stream are bitwise the whole video.

    Args:
        decoder: for all videos.
        mean, deviation: of the VAE's latents by channel, `[C, 1, 1, 1]`; 0 and 1 for a decoder that
            takes what the transformer makes.
    """

    def __init__(
        self, decoder: TinyDecoder, mean: Tensor | float = 0.0, deviation: Tensor | float = 1.0
    ) -> None:
        self.decoder, self.mean, self.deviation = decoder, mean, deviation
        self._memories: list[dict[int, Tensor]] = []

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """The next latents `[B, C, f, h, w]` to pixels in [0, 1], `[B, 3, F, 8p h, 8p w]`.

        F is 4f, and 4f - 3 at the first call, as of Wan's VAE.
        """
        if not self._memories:
            self._memories = [{} for _ in latents]
        if len(latents) != len(self._memories):
            raise ValueError(f"{len(self._memories)} videos were begun, not {len(latents)}")
        kind = next(self.decoder.parameters()).dtype
        rows = zip(latents.to(kind), self._memories, strict=True)
        return torch.stack([self._row(z * self.deviation + self.mean, past) for z, past in rows])

    def _row(self, z: Tensor, memory: dict[int, Tensor]) -> Tensor:
        made = []
        for latent in z.unbind(1):
            first = not memory
            frames = self.decoder(latent[None], memory)
            made.append(frames[-1:] if first else frames)  # those before the first frame are none
        return torch.cat(made).transpose(0, 1)


def read_tiny_decoder(path: Path, channels: int, factor: int) -> TinyDecoder:
    """The decoder in a file as its authors publish it (`.pth` or `.safetensors`), in float32.

    A name that begins with `lighttae` is LightX2V's, whose decoders take latents of the VAE's own
    scale; the tensors of both are alike.

    Args:
        channels, factor: of the size's latents, and pixels of a frame that one of them covers.

    Raises:
        ZooError: it is missing, damaged, no such decoder, or for latents of another kind.
    """
    try:
        content = read_tensors(path)
    except ZooError as error:
        raise ZooError(f"{_WHERE}: {error}") from None
    weights: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if str(name).startswith("encoder."):
            continue
        if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
            raise _wrong(path, f"is no tiny decoder (it has {shown(name)})")
        if tensor.layout is not torch.strided or tensor.is_meta:
            raise _wrong(path, f"its {shown(name)} holds no plain numbers")
        if not tensor.isfinite().all():
            raise _wrong(path, f"its {shown(name)} has numbers that are not finite")
        weights[str(name)] = tensor.float()
    for name in _WIDTHS:
        if name not in weights or weights[name].dim() != 4:
            raise _wrong(path, f"is no tiny decoder (it has no convolution {name!r})")
    found = weights[_WIDTHS[0]].shape[1]
    if found != channels:
        kind = f"decodes latents of {found} channels, and those of this size have {channels}"
        raise _wrong(path, kind)
    with torch.device("meta"):
        decoder = TinyDecoder(
            channels,
            tuple(weights[name].shape[0] for name in _WIDTHS),
            factor // 2 ** len(GROWTH),
            path.name.startswith("lighttae"),
        )
    if difference := _difference(weights, decoder.state_dict()):
        raise _wrong(path, f"is no tiny decoder for this size ({difference})")
    decoder.load_state_dict(weights, assign=True)
    return decoder.eval().requires_grad_(False)


def _wrong(path: Path, why: str) -> ZooError:
    return ZooError(f"{_WHERE}: {path}: {why}; {_RIGHT}")


def _difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The first in which the tensors of a file are not those of a decoder; empty: none."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            return f"it has no {name!r}"
        if name not in wanted:
            return f"it has {shown(name)}, too"
        shapes = [list(side[name].shape) for side in (found, wanted)]
        if shapes[0] != shapes[1]:
            return f"its {name!r} is {shapes[0]}, and {shapes[1]} is needed"
    return ""


def _conv(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
