"""Options of the published sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from salt_zoo.core.base.config import StrictModel
from salt_zoo_wan.published_configs import NEGATIVE_PROMPT, PUBLISHED


class PublishedSizeConfig(StrictModel):
    """Options of the sizes of Wan 2.1."""

    #: A hub id, a folder (a pipeline's, a transformer's only, Wan's own, a saved student's), one
    #: file of weights or an index of shards. null is the published model on the hub.
    weights: str | None = None
    #: Branch, tag or commit of a hub id.
    revision: str = "main"
    #: Where text encoder and VAE come from if `weights` has none: a hub id or a pipeline folder.
    codecs: str | None = None
    #: A file of TAEHV that decodes in place of the VAE, faster and less exactly: `taew2_1.pth` for
    #: Wan 2.1 and for 2.2's A14B, `taew2_2.pth` for Wan 2.2's 5 B. null is the VAE.
    tiny_decoder: Path | None = None
    #: The folder in which encoded prompts are kept for later runs; null is `salt-zoo/text` in
    #: `$XDG_CACHE_HOME` (or `~/.cache`), and main memory where that cannot be written.
    text_cache: Path | None = None
    #: What guidance leads away from, wherever it is used; the default is Wan's own.
    negative_prompt: str = NEGATIVE_PROMPT
    #: Pixels of a frame, multiples of 16.
    height: Annotated[int, Field(ge=16)] = 480
    width: Annotated[int, Field(ge=16)] = 832
    #: Frames of a video, 1 more than a multiple of 4.
    frames: Annotated[int, Field(ge=1)] = 81

    #: Pixels that the VAE makes one latent of.
    spatial_factor: ClassVar[int] = 8

    @field_validator("height", "width")
    @classmethod
    def _patches(cls, value: int) -> int:
        factor = cls.spatial_factor
        if value % (2 * factor):
            raise ValueError(
                f"must be a multiple of {2 * factor} (the VAE's {factor} times the patch's 2)"
            )
        return value

    @field_validator("frames")
    @classmethod
    def _frames(cls, value: int) -> int:
        if value % 4 != 1:
            raise ValueError("must be 1 more than a multiple of 4 (the VAE's first frame is alone)")
        return value


class PublishedSizeConfig720p(PublishedSizeConfig):
    """Options of the size `wan2.1-i2v-14b-720p`."""

    #: Pixels of a frame, multiples of 16.
    height: Annotated[int, Field(ge=16)] = 720
    width: Annotated[int, Field(ge=16)] = 1280


class ExpertsConfig(PublishedSizeConfig):
    """Options of the sizes of Wan 2.2's A14B."""

    #: `both`: teacher and student have two networks, each for its times. `high` and `low` are the
    #: one for high noise (`transformer`) and the one for low noise (`transformer_2`) alone, at all
    #: times; an autoregressive student is one of them.
    expert: Literal["both", "high", "low"] = "both"


class HighResolutionConfig(PublishedSizeConfig):
    """Options of the size `wan2.2-ti2v-5b`."""

    #: Pixels of a frame, multiples of 32.
    height: Annotated[int, Field(ge=32)] = 704
    width: Annotated[int, Field(ge=32)] = 1280
    #: Frames of a video, 1 more than a multiple of 4.
    frames: Annotated[int, Field(ge=1)] = 121
    #: Videos go on from a first frame; false: they are generated from prompts alone.
    from_image: bool = False

    spatial_factor: ClassVar[int] = PUBLISHED["wan2.2-ti2v-5b"].spatial_factor
