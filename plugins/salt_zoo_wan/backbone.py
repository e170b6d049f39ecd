"""The backbone `wan`: all frames at once, no memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from accelerate import init_empty_weights
from pydantic import BaseModel, Field
from torch import Tensor, nn

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError, did_you_mean, shown
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.protocols import BackboneDefaults, Condition, Encoder, Start, StoredWeights
from salt_zoo.io.files.storage import atomic_folder, digest
from salt_zoo.plugin.manager import Zoo
from salt_zoo_wan.checkpoint.export import check_export_target, export_transformer
from salt_zoo_wan.checkpoint.load import stored_transformer
from salt_zoo_wan.checkpoint.lora_extract import extract_lora
from salt_zoo_wan.checkpoint.lora_files import (
    LORA_FILES,
    LORA_FORMATS,
    adapter_factors,
    check_lora_target,
    read_lora,
    write_lora,
)
from salt_zoo_wan.components import together
from salt_zoo_wan.detect_size import detect_size
from salt_zoo_wan.experts.expert_files import (
    load_network,
    lora_of_own,
    refuse_two,
    save_transformers,
)
from salt_zoo_wan.experts.experts import WanExperts, networks_of
from salt_zoo_wan.experts.records import expert_record
from salt_zoo_wan.pipeline import write_pipeline
from salt_zoo_wan.sizes import WanSize, files_of, transformer_config
from salt_zoo_wan.transformer.network import WanNetwork


class TeacherSizeConfig(StrictModel):
    """The size of a teacher."""

    #: A registered size.
    size: str
    #: Options of that size; text encoder and VAE are the student's.
    options: dict[str, Any] = Field(default_factory=dict)


class WanBackboneConfig(StrictModel):
    """Options of the backbone `wan`."""

    #: A registered size; `salt-zoo list` shows them.
    size: str = "digits"
    #: Options of that size, as its plugin documents them.
    options: dict[str, Any] = Field(default_factory=dict)
    #: A teacher of another size, with the same latents and prompts: the score that a student is
    #: distilled from, and a study's rows `teacher`, `teacher-naive` and `teacher-guided`. null is a
    #: teacher of the student's size.
    teacher: TeacherSizeConfig | None = None


def _size_options(config: WanBackboneConfig | TeacherSizeConfig, zoo: Zoo, where: str) -> BaseModel:
    """The checked options of the size that is named there."""
    if config.size not in zoo.sizes:
        hint = did_you_mean(config.size, (entry.name for entry in zoo.sizes))
        raise ZooError(f"{where}.size: unknown size {shown(config.size)}; {hint}")
    return zoo.sizes.configure(config.size, config.options, f"{where}.options")


class WanBackbone(BackboneDefaults):
    """Wan at one size, bidirectional: the student starts from the weights of its size.

    With `teacher` the teacher is another network. What scores a student then is that one, and what
    follows its distribution (DMD's fake score) starts from the weights of the student's size, as in
    Self Forcing and Salt (a student of 1.3 B and its fake score, a teacher of 14 B).
    """

    version = 1
    Config = WanBackboneConfig
    unused: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "saved": ("teacher",),
        "exported": ("teacher",),
        "student": ("teacher",),
    }

    def __init__(self, config: WanBackboneConfig, zoo: Zoo) -> None:
        self.config = config
        options = _size_options(config, zoo, "backbone")
        self.size: WanSize = zoo.sizes.create(config.size, options, zoo)
        self.latent_shape = self.size.latent_shape
        self.frame_rate = self.size.frame_rate
        self.guidance_scale = self.size.guidance_scale
        self.negative_prompt: str = self.size.negative_prompt
        self.device: torch.device | str = "cpu"
        #: Bidirectional, of the student's size; and the teacher.
        self.score = self._score(config, zoo)
        self.teacher = self._teacher(config, zoo) if config.teacher else self.score

    def _score(self, config: WanBackboneConfig, zoo: Zoo) -> WanBackbone:
        """Itself, where a backbone is no more than that."""
        if config.teacher is None:
            return self
        return make_wan(WanBackboneConfig(size=config.size, options=config.options), zoo)

    def _teacher(self, config: WanBackboneConfig, zoo: Zoo) -> WanBackbone:
        """The teacher of another size.

        Raises:
            ZooError: its latents or its encoded prompts are not the student's.
        """
        assert config.teacher is not None
        where = "backbone.teacher"
        _size_options(config.teacher, zoo, where)
        made = make_wan(WanBackboneConfig(**config.teacher.model_dump()), zoo)
        if made.latent_shape != self.latent_shape:
            raise ZooError(
                f"{where}: the latents of {config.teacher.size!r} are {list(made.latent_shape)}, "
                f"those of the student's size {config.size!r} {list(self.latent_shape)}; give both "
                "the same height, width and frames (backbone.teacher.options, backbone.options)"
            )
        texts = [
            {name: list(value.shape) for name, value in size.encode_prompts([""], "meta").items()}
            for size in (made.size, self.size)
        ]
        if made.image_shape != self.image_shape:
            raise ZooError(
                f"{where}: {config.teacher.size!r} generates from {_source(made.image_shape)}, the "
                f"student's size {config.size!r} from {_source(self.image_shape)}; choose two of "
                "one kind"
            )
        if texts[0] != texts[1]:
            raise ZooError(
                f"{where}: {config.teacher.size!r} reads prompts as {texts[0]}, the student's size "
                f"{config.size!r} as {texts[1]}; choose sizes with one text encoder"
            )
        return made

    def to(self, device: torch.device | str) -> WanBackbone:
        self.device = device
        for other in (self.score, self.teacher):
            if other is not self:
                other.to(device)
        return self

    def source(self, start: Start) -> WanBackbone:
        return {"teacher": self.teacher, "score": self.score}.get(start, self)

    @property
    def student_is_score(self) -> bool:  # type: ignore[override]
        return True

    def network(self, start: Start) -> nn.Module:
        if start == "teacher" and self.teacher is not self:
            return self.teacher.network("teacher")
        weights: Literal["teacher", "random"] = "random" if start == "random" else "teacher"
        if self.size.experts is not None:
            two = self.size.experts
            high, low = (
                WanNetwork(one.transformer(weights), one.coordinates) for one in (two.high, two.low)
            )
            return WanExperts(high, low, two.boundary).to(self.device)
        network = WanNetwork(self.size.transformer(weights), self.size.coordinates)
        return network.to(self.device)

    def empty_network(self, start: Start) -> nn.Module:
        """As `network`, without data but for its buffers: loading by slices fills it."""
        with init_empty_weights(include_buffers=False):
            if self.size.experts is None:
                return _empty(self.size)
            two = self.size.experts
            return WanExperts(_empty(two.high), _empty(two.low), two.boundary)

    def stored_weights(self, start: Start) -> StoredWeights | str:
        """The tensors of `network(start)` in their files, or why they are not to be had there."""
        if self.size.experts is None:
            return stored_of(self.size, files_of(self.size))
        two = self.size.experts
        tensors: dict[str, Tensor] = {}
        places: list[str] = []
        for name, size in (("high", two.high), ("low", two.low)):
            stored = stored_of(size, files_of(size), f"{name}.")
            if isinstance(stored, str):
                return stored
            tensors.update(stored.tensors)
            places.append(stored.place)
        return StoredWeights(tensors, ", ".join(places))

    def blocks(self, network: Any = None) -> Blocks:
        return Blocks()

    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        return self.size.encode_prompts(prompts, self.device)

    @property
    def encode_ahead(self) -> Callable[[Sequence[str]], None] | None:  # type: ignore[override]
        ahead = self.size.encode_ahead
        return (lambda prompts: ahead(prompts, self.device)) if ahead else None

    @property
    def encode_cost(self) -> Callable[[Sequence[str]], list[str]] | None:  # type: ignore[override]
        cost = self.size.encode_cost
        return (lambda prompts: cost(prompts, self.device)) if cost else None

    def encoder(self, of: Encoder) -> Mapping[str, str]:
        return self.size.encoder(of)

    def encode_once(self, prompts: Sequence[str]) -> Condition:
        return self.size.encode_once(prompts, self.device)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:  # type: ignore[override]
        return self.size.image_shape

    def encode_images(self, images: Tensor) -> Condition:
        return self.size.encode_images(images)

    def encode_video(self, video: Tensor) -> Tensor:
        return self.size.encode_video(video)

    def decode_video(self, latents: Tensor) -> Tensor:
        return self.size.decode_video(latents)

    def frame_decoder(self) -> Callable[[Tensor], Tensor]:
        """Decodes the blocks of one stream in their order; keeps what the next one needs."""
        return self.size.frame_decoder(self.device)

    @property
    def frame_size(self) -> tuple[int, int] | None:  # type: ignore[override]
        return self.size.frame_size

    def pixel_frames(self, latent_frames: int) -> int:
        """Frames of a decoded video of `latent_frames` latent frames."""
        return self.size.pixel_frames(latent_frames)

    def save(self, network: nn.Module, folder: Path) -> None:
        """Write `network` as a diffusers folder, for a size without codecs `transformer/` only (of
        two networks `transformer_2/`, too).

        With text encoder and VAE beside it a stock `WanPipeline` (for a size that generates from an
        image `WanImageToVideoPipeline`) loads it; its README shows how.
        """
        save_transformers(network, folder, self.size)
        folders, frame_size = self.size.codec_folders(), self.size.frame_size
        if folders is not None and frame_size is not None:
            write_pipeline(
                folder,
                folders,
                frame_size,
                self.pixel_frames(self.latent_shape[1]),
                self.frame_rate,
                self.negative_prompt,
                self.guidance_scale,
                parts=self.size.codecs,
                from_image=self.image_shape is not None,
                expand_timesteps=self.size.expand_timesteps,
                boundary=network.boundary if isinstance(network, WanExperts) else None,
            )

    def load(self, place: Path) -> nn.Module:
        """The network of a saved student, or of another code's weights (`load_transformer`).

        Raises:
            ZooError: there is none, or it is damaged, or not of this backbone's size.
        """
        return load_network(self.size, place, self.config.size).to(self.device)

    @classmethod
    def recognise(cls, place: Path, zoo: Zoo, size: str | None) -> dict[str, Any]:
        """The options with which it loads another code's weights; `size` is one that was named.

        Raises:
            ZooError: they are not a Wan's, or of no registered size.
        """
        return {"size": detect_size(place, zoo, size)}

    def check_export(self, path: Path, format: str) -> None:
        """A ZooError for a format that `export` does not know or a name that is not its own."""
        if check_export_target(path, format).endings:
            refuse_two(self.size, format, "; or take the format diffusers, a folder of both")

    def export(self, network: nn.Module, path: Path, format: str) -> None:
        """Write `network` in a form of other codes, see `checkpoint.export`."""
        self.check_export(path, format)
        if self.size.experts is not None:
            with atomic_folder(path) as draft:
                save_transformers(network, draft, self.size)
            return
        transformer: Any = network.transformer
        export_transformer(transformer, path, format, expert_record(self.size.expert_part))

    lora_formats: ClassVar[tuple[str, ...]] = LORA_FORMATS

    def check_lora(self, path: Path, format: str) -> None:
        """A ZooError for a name that does not end as the format's files do."""
        check_lora_target(path, format)
        refuse_two(self.size, format)

    def save_lora(self, network: nn.Module, folder: Path) -> None:
        """Write the adapters as diffusers' `load_lora_weights` reads them from a folder; of two
        networks those of the one for low noise in a second file."""
        for part, one in networks_of(network).items():
            write_lora(adapter_factors(one), folder / LORA_FILES[part], "lora")

    def export_lora(self, folder: Path, path: Path, format: str) -> None:
        """Write a saved student's LoRA in a format of `checkpoint.lora_files`."""
        saved = lora_of_own(self.size, folder)
        if not saved.is_file():
            raise ZooError(
                f"{folder}: was not trained as a LoRA (it has no {saved.name}); extract one of a "
                "rank: --rank 64"
            )
        write_lora(read_lora(saved, self._linear_layers()), path, format)

    def extract_lora(
        self, network: nn.Module, base: nn.Module, rank: int, path: Path, format: str
    ) -> Mapping[str, float]:
        """Write the nearest LoRA of a rank; the errors are in the file's header, too."""
        student: Any = network
        origin: Any = base
        found = extract_lora(student.transformer, origin.transformer, rank)
        header = {"relative_error": repr(found.error), "relative_errors": json.dumps(found.errors)}
        write_lora(found.factors, path, format, header)
        return {**found.errors, "": found.error}

    def _linear_layers(self) -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            transformer = self.size.transformer("random")
        return {
            name: tuple(layer.weight.shape)
            for name, layer in transformer.named_modules()
            if isinstance(layer, nn.Linear)
        }

    def prepare(self) -> None:
        """Fetch what the size lacks; a ZooError says what cannot be had, and how to get it."""
        self.size.prepare()
        if self.teacher.size is not self.size:
            self.teacher.size.prepare(self.teacher.size.transformers)

    def downloads(self) -> list[dict[str, Any]]:
        """What is not on this machine yet: `source`, `parts`, `bytes` and the `command` for it.

        Each part once: student and teacher may have some in common.
        """
        found = self.size.downloads()
        if self.teacher.size is not self.size:
            found = [*found, *self.teacher.size.downloads(self.teacher.size.transformers)]
        return together(found)

    def codec_modules(self) -> Mapping[str, nn.Module]:
        """Text encoder and VAE without their data, for planning; empty for a size without."""
        return self.size.codec_modules()

    def codecs_of(self, of: Encoder) -> tuple[str, ...]:
        return self.size.codecs_of(of)

    def fingerprint(self) -> Mapping[str, str]:
        found = dict(self.teacher.size.fingerprint())
        if self.config.teacher:  # what has this teacher alone is a part of it
            own = self.size.fingerprint()
            found |= {f"student/{name}": value for name, value in own.items()}
        if self.negative_prompt:
            found["negative_prompt"] = digest(self.negative_prompt)
        return found


def make_wan(config: WanBackboneConfig, zoo: Zoo) -> WanBackbone:
    """The teacher or score of another backbone: a plan measures it once for all made alike."""
    made = WanBackbone(config, zoo)
    zoo.backbones.alike("wan", made, config)
    return made


def _source(image_shape: tuple[int, int, int] | None) -> str:
    return "prompts alone" if image_shape is None else "a first frame"


def _empty(size: WanSize) -> WanNetwork:
    return WanNetwork(size.transformer("random").eval(), size.coordinates)


def stored_of(size: WanSize, place: Path | None, prefix: str = "") -> StoredWeights | str:
    """The tensors of a size's network in the files at `place`, or why there are none."""
    if place is None:
        return "its size does not say in which files they are"
    return stored_transformer(place, transformer_config(size), f"{prefix}transformer.")
