"""What a size of Wan must bring: the transformer, and its text and video codecs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from salt_zoo.core.protocols import Condition


class WanSize(Protocol):
    """A configuration of Wan. Made as `Factory(config, zoo)` from the registry `sizes`.

    It may also have `codec_folders()`, `codec_modules()`, `downloads(parts)` and `prepare(parts)`,
    as `PublishedSize` has: a student is then saved as a whole pipeline, and planning knows what the
    codecs take; of a teacher of another size only the part `transformer` is asked for. With
    `causal_weights`, a diffusers transformer folder or None, causal students start from that. With
    `frame_decoder(device)` and `pixel_frames(n)` it says how streams are decoded, see
    `salt_zoo.core.protocols.Backbone`; `frame_size` are height and width of a decoded frame,
    `transformer_config` the arguments of its transformer.
    """

    latent_shape: tuple[int, int, int, int]
    frame_rate: float
    #: With which the teacher is usually sampled.
    guidance_scale: float
    #: What guidance leads away from; "" for a size that has no such attribute.
    negative_prompt: str
    #: Cosine channels per axis that the network adds to its input; 0 for the published models.
    coordinates: int

    def transformer(self, start: Literal["teacher", "random"]) -> Any:
        """A new `WanTransformer3DModel`."""
        ...

    def encode_prompts(self, prompts: Sequence[str], device: Any) -> Condition: ...

    def encode_video(self, video: Tensor) -> Tensor: ...

    def decode_video(self, latents: Tensor) -> Tensor: ...

    def fingerprint(self) -> dict[str, str]: ...


def transformer_config(size: WanSize) -> dict[str, Any]:
    """The arguments of the size's `WanTransformer3DModel`: its `transformer_config` where it has
    one, else those of a transformer without data."""
    own: dict[str, Any] | None = getattr(size, "transformer_config", None)
    if own is not None:
        return own
    with torch.device("meta"):
        config = size.transformer("random").config
    return {key: value for key, value in config.items() if not key.startswith("_")}
