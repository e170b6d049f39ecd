"""Data sets: prompts, and real videos where the data has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from salt_zoo.core.base.errors import ZooError

if TYPE_CHECKING:
    from torch import Tensor

    from salt_zoo.core.base.rng import KeyedRNG
    from salt_zoo.core.networks.backbone import Backbone
    from salt_zoo.core.networks.network import Condition


@dataclass(frozen=True)
class Sample:
    """Rows of a dataset: pixels in [0, 1] `[B, channels, frames, height, width]` and prompts.

    A dataset that has been encoded has `latents` `[B, C, F, H, W]` in place of `video`, and in
    `first_frame` what `Backbone.encode_images` made of the videos' first frames, where it was
    encoded for a backbone that generates from them.

    Where the dataset has them, `trajectory` are a flow's states in latents, `[B, K, C, F, H, W]`:
    at the falling `trajectory_times`, then at time 0, so that K is their number and one.
    """

    prompts: list[str]
    video: Tensor | None
    trajectory: Tensor | None = None
    trajectory_times: tuple[float, ...] = ()
    latents: Tensor | None = None
    first_frame: Condition | None = None


def check_has_videos(sample: Sample) -> None:
    """Refuse rows for a method that needs data which have neither videos nor latents.

    Raises:
        ZooError: they have not.
    """
    if sample.video is None and sample.latents is None:
        raise ZooError(
            "dataset: it has no videos, which the method needs; choose a data-free method, or "
            "another dataset"
        )


#: The parts of a dataset.
Split = Literal["train", "validation", "test"]


class Dataset(Protocol):
    """Prompts, and real videos where the data has them."""

    def prompts(self, split: Split) -> list[str]: ...

    def sample(self, rng: KeyedRNG, split: Split, videos: bool) -> Sample:
        """One row for each row of `draws`; `videos=False` saves making what is not looked at."""
        ...

    def real(
        self, prompts: Sequence[str], rng: KeyedRNG, split: str, frames: int | None = None
    ) -> Tensor | None:
        """A real video for each of the prompts, or None where there is none.

        `frames` of pixels; None is the data's own length. A longer video begins as a shorter one.
        """
        ...

    def fingerprint(self) -> Mapping[str, str]: ...


@runtime_checkable
class Encoded(Protocol):
    """A dataset whose prompts or videos a backbone's encoders have encoded before."""

    def bind(self, backbone: Backbone) -> None:
        """Give a backbone the encodings of its prompts.

        Raises:
            ZooError: it has other encoders than those that made them.
        """
        ...


@runtime_checkable
class DrawsPrompts(Protocol):
    """A dataset that tells the prompts of its rows without reading what belongs to them, which is
    large; of others a row is made for its prompt."""

    def draw_prompts(self, rng: KeyedRNG, split: Split) -> list[str]:
        """Those of `sample` for the same rows."""
        ...


@runtime_checkable
class HoldsLatents(Protocol):
    """A dataset whose videos are latents already, where its options say so; for plans."""

    @staticmethod
    def holds_latents(config: Any) -> bool:
        """Whether they are, with these options."""
        ...


@runtime_checkable
class EncodedFirstFrames(Protocol):
    """A dataset without pixels whose videos' first frames have been encoded before."""

    def first_frames(self, prompts: Sequence[str], rng: KeyedRNG, split: str) -> Condition:
        """What `Backbone.encode_images` made of the first frame of a video for each of the prompts.

        Raises:
            ZooError: it was encoded for a backbone that generates from prompts alone.
        """
        ...
