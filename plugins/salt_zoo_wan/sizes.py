"""Interface of a size of Wan: its transformer, and its text and video codecs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from salt_zoo.core.base.overridden import is_overridden
from salt_zoo.core.protocols import Condition, Encoder
from salt_zoo_wan.components import Download


@dataclass(frozen=True)
class Experts:
    """The sizes of the two networks of one flow.

    Attributes:
        high, low: of the one for times from `boundary` on, and of the one below.
    """

    high: WanSize
    low: WanSize
    boundary: float


class WanSize(Protocol):
    """A configuration of Wan. Made as `Factory(config, zoo)` from the registry `sizes`.

    Whoever makes one inherits `WanSizeDefaults`, which has what a size without codecs needs.
    """

    latent_shape: tuple[int, int, int, int]
    frame_rate: float
    #: With which the teacher is usually sampled.
    guidance_scale: float
    #: What guidance leads away from.
    negative_prompt: str
    #: Height and width of a decoded frame, where it is known.
    frame_size: tuple[int, int] | None
    #: Channels, height and width of the first frame that it generates from; None: from prompts.
    image_shape: tuple[int, int, int] | None
    #: A diffusers transformer folder that causal students start from; None for the teacher's.
    causal_weights: Path | None
    #: The arguments of its transformer; None reads them off a transformer without data.
    transformer_config: dict[str, Any] | None
    #: Encodes in one go the prompts that will be encoded next; None where that is cheap.
    encode_ahead: Callable[[Sequence[str], Any], None] | None
    #: What its pipeline has beside transformer and scheduler.
    codecs: tuple[str, ...]
    #: The parts of its pipeline that are networks of its flow.
    transformers: tuple[str, ...]
    #: Its two networks; None for one.
    experts: Experts | None
    #: Of one of two networks, its part of a pipeline with both; None for others.
    expert_part: str | None
    #: Whether its pipeline gives the first frame's latents, and times for each token.
    expand_timesteps: bool
    #: Cosine channels per axis that the network adds to its input; 0 for the published models.
    coordinates: int

    #: Tells which of some prompts the text encoder would have to run for; None where it is cheap.
    encode_cost: Callable[[Sequence[str], Any], list[str]] | None

    def encoder(self, of: Encoder) -> Mapping[str, str]:
        """See `salt_zoo.core.protocols.Backbone`."""
        ...

    def encode_once(self, prompts: Sequence[str], device: torch.device | str) -> Condition:
        """`encode_prompts` for prompts that somebody else keeps."""
        ...

    def transformer(self, start: Literal["teacher", "random"]) -> WanTransformer3DModel:
        """A new `WanTransformer3DModel`."""
        ...

    def transformer_files(self) -> Path | None:
        """What `transformer("teacher")` loads with `checkpoint.load.load_transformer`; None: it is
        made otherwise.

        Raises:
            ZooError: as `transformer`.
        """
        ...

    def encode_prompts(self, prompts: Sequence[str], device: torch.device | str) -> Condition: ...

    def encode_images(self, images: Tensor) -> Condition:
        """See `salt_zoo.core.protocols.Backbone`. `WanNetwork` reads:

        - `channels` `[B, C, F, h, w]`: beside the noisy latents in the transformer's input;
        - `image` `[B, tokens, image_dim]`: for the cross-attention, beside the prompt's tokens;
        - `first` `[B, C, 1, h, w]`: the first frame's latents, in place of its noisy ones.
        """
        ...

    def encode_video(self, video: Tensor) -> Tensor: ...

    def decode_video(self, latents: Tensor) -> Tensor: ...

    def frame_decoder(self, device: torch.device | str) -> Callable[[Tensor], Tensor]:
        """See `salt_zoo.core.protocols.Backbone`."""
        ...

    def pixel_frames(self, latent_frames: int) -> int: ...

    def fingerprint(self) -> dict[str, str]: ...

    def prepare(self, parts: Sequence[str] = ()) -> None:
        """Fetch what is missing of the parts (of all, where none is named)."""
        ...

    def downloads(self, parts: Sequence[str] = ()) -> list[Download]:
        """What is missing of the parts (of all, where none is named)."""
        ...

    def codec_folders(self) -> Mapping[str, Path] | None:
        """Folders of text encoder and VAE, with which a student is saved as a whole pipeline; None
        where there are none."""
        ...

    def codec_modules(self) -> Mapping[str, nn.Module]:
        """Text encoder and VAE on the meta device, for plans."""
        ...

    def codecs_of(self, of: Encoder) -> tuple[str, ...]:
        """See `salt_zoo.core.protocols.Backbone`."""
        ...


class WanSizeDefaults:
    """The members of `WanSize` that a size without codecs does not need: inherit it."""

    negative_prompt: str = ""
    frame_size: tuple[int, int] | None = None
    image_shape: tuple[int, int, int] | None = None
    causal_weights: Path | None = None
    codecs: tuple[str, ...] = ()
    transformers: tuple[str, ...] = ("transformer",)
    experts: Experts | None = None
    expert_part: str | None = None
    expand_timesteps: bool = False
    transformer_config: dict[str, Any] | None = None
    encode_ahead: Callable[[Sequence[str], Any], None] | None = None
    encode_cost: Callable[[Sequence[str], Any], list[str]] | None = None

    def transformer_files(self) -> Path | None:
        return None

    def encoder(self: Any, of: Encoder) -> Mapping[str, str]:
        found: Mapping[str, str] = self.fingerprint()
        return found

    def encode_once(self: Any, prompts: Sequence[str], device: torch.device | str) -> Condition:
        found: Condition = self.encode_prompts(prompts, device)
        return found

    def encode_images(self, images: Tensor) -> Condition:
        return {}

    def frame_decoder(self: Any, device: torch.device | str) -> Callable[[Tensor], Tensor]:
        decode: Callable[[Tensor], Tensor] = self.decode_video
        return decode

    def pixel_frames(self, latent_frames: int) -> int:
        return latent_frames

    def prepare(self, parts: Sequence[str] = ()) -> None:
        """Nothing is missing."""

    def downloads(self, parts: Sequence[str] = ()) -> list[Download]:
        return []

    def codec_folders(self) -> Mapping[str, Path] | None:
        return None

    def codec_modules(self) -> Mapping[str, nn.Module]:
        return {}

    def codecs_of(self, of: Encoder) -> tuple[str, ...]:
        return ()


def files_of(size: WanSize) -> Path | None:
    """The size's `transformer_files`; None where a subclass makes its transformer otherwise and
    says nothing of files."""
    if is_overridden(type(size), "transformer", "transformer_files"):
        return None
    return size.transformer_files()


def transformer_config(size: WanSize) -> dict[str, Any]:
    """The arguments of the size's `WanTransformer3DModel`: its `transformer_config` where it has
    one, else those of a transformer without data."""
    if size.transformer_config is not None:
        return size.transformer_config
    with torch.device("meta"):
        config = size.transformer("random").config
    return {key: value for key, value in config.items() if not key.startswith("_")}
