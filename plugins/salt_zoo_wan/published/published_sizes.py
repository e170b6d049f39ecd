"""The published sizes of one transformer: Wan 2.1 and Wan 2.2's 5 B. The smallest is the base."""

from __future__ import annotations

from salt_zoo_wan.encoders.image_condition import ImageCodec, LatentsOfImage
from salt_zoo_wan.published.published_options import HighResolutionConfig, PublishedSizeConfig720p
from salt_zoo_wan.published.published_size import PublishedSize


class LargePublishedSize(PublishedSize):
    """The 14 B model."""

    name = "wan2.1-t2v-14b"


class ImageToVideo480p(PublishedSize):
    """The 14 B image-to-video model at 480p."""

    name = "wan2.1-i2v-14b-480p"


class ImageToVideo720p(PublishedSize):
    """The 14 B image-to-video model at 720p."""

    Config = PublishedSizeConfig720p
    name = "wan2.1-i2v-14b-720p"


class HighResolutionSize(PublishedSize):
    """Wan 2.2's 5 B model, from text or from a first frame and text: a VAE of 16 x 16 x 4 with 48
    channels, 24 frames a second."""

    Config = HighResolutionConfig
    config: HighResolutionConfig
    name = "wan2.2-ti2v-5b"
    frame_rate = 24.0

    @property
    def expand_timesteps(self) -> bool:  # type: ignore[override]
        return self.config.from_image

    def _first_frame_codec(self) -> ImageCodec | None:
        return LatentsOfImage(self.video) if self.config.from_image else None
