"""Backbones: pretrained families of velocity networks, with their text and video codecs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from salt_zoo.core.networks.network import Condition

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from salt_zoo.core.networks.blocks import Blocks

#: Whose weights a network begins with: those of the teacher, of a bidirectional network of the
#: student's size (`score`: the teacher, where that has this size), of the initial student, or none.
Start = Literal["teacher", "score", "student", "random"]


#: The encoders of a backbone, by what they encode.
Encoder = Literal["text", "video", "image"]


class Encodings(Protocol):
    """Prompts that were encoded before, see `salt_zoo.core.networks.condition.encode`."""

    def __contains__(self, prompt: object) -> bool: ...

    def find(self, prompt: str, device: torch.device | str) -> Condition | None:
        """The row of a prompt (without the batch in front) on a device; None: it is not known."""
        ...


class Backbone(Protocol):
    """A pretrained family of velocity networks with its text and video codecs.

    Whoever makes one inherits `BackboneDefaults`, which has what few backbones need.
    """

    latent_shape: tuple[int, int, int, int]  # C, F, H, W of one video
    frame_rate: float  # frames of decoded video a second
    guidance_scale: float  # with which the teacher is usually sampled
    #: What guidance leads away from.
    negative_prompt: str
    #: Height and width of a decoded frame in pixels, where it is known.
    frame_size: tuple[int, int] | None
    device: torch.device | str
    #: Channels, height and width of the first frame from which a video goes on; None: a video is
    #: generated from its prompt alone.
    image_shape: tuple[int, int, int] | None

    def to(self, device: torch.device | str) -> Backbone:
        """Everything that it makes or encodes from now on lies on `device`; returns itself."""
        ...

    def network(self, start: Literal["teacher", "student", "random"]) -> nn.Module:
        """A new network with the weights of the teacher or of the initial student, or random."""
        ...

    def blocks(self, network: Any = None) -> Blocks:
        """In which blocks of frames `network` (None: a student) generates, and its memory."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Condition: ...

    def encode_images(self, images: Tensor) -> Condition:
        """What first frames `[B, *image_shape]` in [0, 1] add to the condition of prompts, with
        and without guidance; never called where `image_shape` is None.

        What has frames is for the backbone's own length. A longer video goes on with its last.
        """
        ...

    def encode_video(self, video: Tensor) -> Tensor:
        """Pixels in [0, 1], `[B, channels, frames, height, width]`, to latents."""
        ...

    def decode_video(self, latents: Tensor) -> Tensor:
        """Latents to pixels; nominally in [0, 1], not clamped."""
        ...

    def save(self, network: nn.Module, folder: Path) -> None:
        """Write a network (and what runs it) to `folder`, loadable by `load`."""
        ...

    def load(self, folder: Path) -> nn.Module: ...

    def fingerprint(self) -> Mapping[str, str]:
        """What identifies the teacher: names of files or weights, each with a digest."""
        ...

    def source(self, start: Start) -> Backbone:
        """The backbone that makes the networks of a start: `network("teacher")` of it the network
        itself, `network("random")` one like it (an autoregressive student has a bidirectional
        teacher, perhaps of another size)."""
        ...

    @property
    def student_is_score(self) -> bool:
        """Whether the initial student has the weights of `score`, for the plan of what LoRAs share;
        the networks themselves are compared when they are made."""
        ...

    def frame_decoder(self) -> Callable[[Tensor], Tensor]:
        """A new decoder for the blocks of one stream in their order, latents to pixels."""
        ...

    def pixel_frames(self, latent_frames: int) -> int:
        """Frames of a decoded video of `latent_frames` latent frames."""
        ...

    #: Prompts that need no text encoder; None: all are encoded when they are asked for.
    encodings: Encodings | None

    def encoder(self, of: Encoder) -> Mapping[str, str]:
        """What identifies the encoder of prompts, of videos or of first frames: names, each with a
        digest. What one has encoded is of no use to another."""
        ...

    @property
    def encode_cost(self) -> Callable[[Sequence[str]], list[str]] | None:
        """Tells which of some prompts the text encoder would have to run for; None where it is so
        cheap that nobody asks."""
        ...

    def encode_once(self, prompts: Sequence[str]) -> Condition:
        """`encode_prompts` for prompts that somebody else keeps: no cache has to."""
        ...

    @property
    def encode_ahead(self) -> Callable[[Sequence[str]], None] | None:
        """Encodes in one go the prompts that will be encoded next; None where that is cheap."""
        ...

    def prepare(self) -> None:
        """Fetch what is missing on this machine.

        Raises:
            ZooError: what cannot be had, and how to get it.
        """
        ...

    def downloads(self) -> list[dict[str, Any]]:
        """What is missing on this machine: `source`, `parts`, `bytes` and the `command` for it."""
        ...

    def codec_modules(self) -> Mapping[str, nn.Module]:
        """Text encoder and VAE on the meta device, for plans."""
        ...

    def codecs_of(self, of: Encoder) -> tuple[str, ...]:
        """Those of `codec_modules` that prompts, videos or first frames go through, for plans. What
        videos and first frames went through stays on the device."""
        ...


class BackboneDefaults:
    """The members of `Backbone` that most backbones do not need: inherit it."""

    negative_prompt: str = ""
    frame_size: tuple[int, int] | None = None
    image_shape: tuple[int, int, int] | None = None
    encode_ahead: Callable[[Sequence[str]], None] | None = None
    encodings: Encodings | None = None
    encode_cost: Callable[[Sequence[str]], list[str]] | None = None
    student_is_score: bool = False
    #: Whether its students make a video block by block.
    streams: ClassVar[bool] = False
    #: Options that change nothing of a network that is loaded (`saved`) and then sampled or
    #: exported, of the teacher, or of the initial student.
    unused: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def source(self: Any, start: Start) -> Any:
        return self

    def encoder(self: Any, of: Encoder) -> Mapping[str, str]:
        """All that identifies the backbone, where its encoders have no digest of their own."""
        found: Mapping[str, str] = self.fingerprint()
        return found

    def encode_once(self: Any, prompts: Sequence[str]) -> Condition:
        found: Condition = self.encode_prompts(prompts)
        return found

    def encode_images(self, images: Tensor) -> Condition:
        return {}

    def frame_decoder(self: Any) -> Callable[[Tensor], Tensor]:
        decode: Callable[[Tensor], Tensor] = self.decode_video
        return decode

    def pixel_frames(self, latent_frames: int) -> int:
        return latent_frames

    def prepare(self) -> None:
        """Nothing is missing."""

    def downloads(self) -> list[dict[str, Any]]:
        return []

    def codec_modules(self) -> Mapping[str, nn.Module]:
        return {}

    def codecs_of(self, of: Encoder) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a network as they lie in files.

    Attributes:
        tensors: by the names of the network's parameters. Each is a view of a mapped file, of which
            is read what is used: a slice of rows reads those rows.
        place: what messages call the files.
    """

    tensors: Mapping[str, Tensor]
    place: str


@runtime_checkable
class LoadsSlices(Protocol):
    """A backbone whose networks are loaded by slices: no process of a sharded run has to hold a
    whole one. Without this every process makes whole networks with `network` and keeps its part."""

    def empty_network(self, start: Literal["teacher", "student", "random"]) -> nn.Module:
        """As `network(start)`, its parameters on the meta device; its buffers have their values."""
        ...

    def stored_weights(self, start: Literal["teacher", "student"]) -> StoredWeights | str:
        """The parameters of `network(start)`, checked but for their numbers; or why they cannot be
        read in parts, for people. Then the first process makes the network whole.

        Raises:
            ZooError: as `network`.
        """
        ...


@runtime_checkable
class Exportable(Backbone, Protocol):
    """A backbone whose networks can be written in forms of other codes."""

    def check_export(self, path: Path, format: str) -> None:
        """A ZooError for a format that it does not know, or a name that is not the format's."""
        ...

    def export(self, network: nn.Module, path: Path, format: str) -> None:
        """Write `network` to `path`."""
        ...


@runtime_checkable
class ExportsLora(Protocol):
    """A backbone that writes LoRAs as files of other codes."""

    #: Its formats of `export` that are LoRAs.
    lora_formats: ClassVar[tuple[str, ...]]

    def check_lora(self, path: Path, format: str) -> None:
        """A ZooError for a name that is not the format's."""
        ...

    def save_lora(self, network: nn.Module, folder: Path) -> None:
        """Write the adapters of a trained network (`salt_zoo.core.networks.lora`) beside what
        `save` has written of the merged one."""
        ...

    def export_lora(self, folder: Path, path: Path, format: str) -> None:
        """Write what `save_lora` has written in another format.

        Raises:
            ZooError: the student was no LoRA.
        """
        ...

    def extract_lora(
        self, network: nn.Module, base: nn.Module, rank: int, path: Path, format: str
    ) -> Mapping[str, float]:
        """Write the LoRA of `rank` that is nearest to the difference of two whole networks; returns
        the share that is lost of it, by layer and, under an empty name, of all weights."""
        ...


@runtime_checkable
class Recognises(Protocol):
    """A class of backbones that load other codes' weights."""

    def recognise(self, place: Path, zoo: Any, size: str | None) -> dict[str, Any]:
        """The options with which it loads them; `size` is one that the user named.

        Raises:
            ZooError: they are not its own, or of no registered size.
        """
        ...
