"""The published sizes of Wan 2.1 and 2.2 text-to-video, and any model of the same structure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from pydantic import Field, field_validator
from torch import Tensor

from salt_zoo.core.config import StrictModel
from salt_zoo.core.errors import ZooError
from salt_zoo.core.protocols import Condition, Encoder
from salt_zoo.io.storage import digest
from salt_zoo.plugin.manager import Zoo
from salt_zoo_wan.checkpoint.config_json import read_arguments
from salt_zoo_wan.checkpoint.files import find_checkpoint
from salt_zoo_wan.checkpoint.formats import ENDINGS
from salt_zoo_wan.checkpoint.load import load_transformer
from salt_zoo_wan.components import COMPONENTS, Components, known_digest
from salt_zoo_wan.frame_decoder import FrameDecoder
from salt_zoo_wan.prompt_cache import MAX_TOKENS
from salt_zoo_wan.published_configs import NEGATIVE_PROMPT, PUBLISHED, TEXT_ENCODER
from salt_zoo_wan.sizes import WanSizeDefaults
from salt_zoo_wan.text_encoder import TextEncoder
from salt_zoo_wan.vae import VideoCodec


class PublishedSizeConfig(StrictModel):
    """Options of the sizes `wan2.1-t2v-1.3b` and `wan2.1-t2v-14b`."""

    #: A hub id, a folder (a pipeline's, a transformer's only, Wan's own, a saved student's), one
    #: file of weights or an index of shards. null is the published model on the hub.
    weights: str | None = None
    #: Branch, tag or commit of a hub id.
    revision: str = "main"
    #: Where text encoder and VAE come from if `weights` has none: a hub id or a pipeline folder.
    codecs: str | None = None
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


class HighResolutionConfig(PublishedSizeConfig):
    """Options of the size `wan2.2-ti2v-5b`."""

    #: Pixels of a frame, multiples of 32.
    height: Annotated[int, Field(ge=32)] = 704
    width: Annotated[int, Field(ge=32)] = 1280
    #: Frames of a video, 1 more than a multiple of 4.
    frames: Annotated[int, Field(ge=1)] = 121

    spatial_factor: ClassVar[int] = PUBLISHED["wan2.2-ti2v-5b"].spatial_factor


class PublishedSize(WanSizeDefaults):
    """A published Wan with UMT5 and its VAE. Each part is loaded (or fetched) when first used."""

    version = 1
    Config = PublishedSizeConfig
    name: ClassVar[str] = "wan2.1-t2v-1.3b"

    frame_rate = 16.0
    guidance_scale = 5.0
    coordinates = 0
    transformer_config: dict[str, Any]

    def __init__(self, config: PublishedSizeConfig, zoo: Zoo) -> None:
        self.config = config
        self.negative_prompt = config.negative_prompt
        published = PUBLISHED[self.name]
        weights = config.weights or published.hub
        path = Path(weights).expanduser()
        #: A file, an index of shards, or a folder that is not diffusers', else None.
        self.file = path if path.suffix in (*ENDINGS, ".json") or _is_other_folder(path) else None
        if self.file is not None and not self.file.exists():
            raise ZooError(f"{path}: there is no such file; see backbone.options.weights")
        sizes, codecs = published.bytes, COMPONENTS[1:]
        default = Components(published.hub, bytes=sizes, needed=codecs)
        self.components = default if self.file else Components(weights, config.revision, sizes)
        whole = not self.file and (
            not self.components.is_local or (path / "model_index.json").is_file()
        )
        if config.codecs:
            self.codec_components = Components(config.codecs, bytes=sizes, needed=codecs)
        else:
            self.codec_components = self.components if whole else default
        self.transformer_config = self._transformer_config()
        self.latent_shape = (
            self.transformer_config["out_channels"],
            (config.frames - 1) // 4 + 1,
            config.height // config.spatial_factor,
            config.width // config.spatial_factor,
        )
        self.frame_size = (config.height, config.width)
        self.text = TextEncoder(self.codec_components, config.text_cache)
        self.video = VideoCodec(self.codec_components)

    def transformer(self, start: Literal["teacher", "random"]) -> WanTransformer3DModel:
        """A new transformer in float32.

        Raises:
            ZooError: the weights are not there and cannot be fetched, or are damaged.
        """
        if start == "random":
            return WanTransformer3DModel(**self.transformer_config)
        return load_transformer(self.transformer_files(), self.transformer_config).float()

    def transformer_files(self) -> Path:
        return self.file if self.file is not None else self.components.folder("transformer")

    def encode_prompts(self, prompts: Sequence[str], device: torch.device | str) -> Condition:
        """`text`: `[B, 512, width]`. On the meta device (for planning) nothing is loaded."""
        if torch.device(device).type == "meta":
            width = self.transformer_config["text_dim"]
            return {"text": torch.empty(len(prompts), MAX_TOKENS, width, device="meta")}
        return {"text": self.text.encode(prompts, device)}

    def encode_ahead(self, prompts: Sequence[str], device: torch.device | str) -> None:
        """Encode in one go what `encode_prompts` will be asked for."""
        self.text.encode_ahead(prompts, device)

    def encode_once(self, prompts: Sequence[str], device: torch.device | str) -> Condition:
        """What is not in the cache stays out of it, and the encoder on the device."""
        return {"text": self.text.encode_once(prompts, device)}

    def encode_cost(self, prompts: Sequence[str], device: torch.device | str) -> list[str]:
        """Those of the prompts that are not in the cache."""
        return self.text.missing(prompts, device)

    def encoder(self, of: Encoder) -> dict[str, str]:
        parts = ("text_encoder", "tokenizer") if of == "text" else ("vae",)
        components = [self.codec_components.fingerprint(part) for part in parts]
        return {name: value for found in components for name, value in found.items()}

    def encode_video(self, video: Tensor) -> Tensor:
        """Pixels to latents; what has the latents' shape already (a dataset of latents) is kept."""
        if tuple(video.shape[1:]) == self.latent_shape:
            return video
        return self.video.encode(video)

    def decode_video(self, latents: Tensor) -> Tensor:
        return self.video.decode(latents)

    def frame_decoder(self, device: torch.device | str) -> FrameDecoder:
        return self.video.frame_decoder(device)

    def pixel_frames(self, latent_frames: int) -> int:
        return max(0, 4 * latent_frames - 3)

    def fingerprint(self) -> dict[str, str]:
        found = {"transformer_config": digest(self.transformer_config)}
        if self.file is not None:
            for file in find_checkpoint(self.file).files:
                found[f"transformer/{file.name}"] = known_digest(file)
        else:
            found |= self.components.fingerprint("transformer")
        for part in COMPONENTS[1:]:
            found |= self.codec_components.fingerprint(part)
        return found

    def codec_folders(self) -> dict[str, Path]:
        """The folders of text encoder, tokenizer and VAE that are on this machine."""
        found = {part: self.codec_components.find(part) for part in COMPONENTS[1:]}
        return {part: folder for part, folder in found.items() if folder is not None}

    def downloads(self, parts: Sequence[str] = COMPONENTS) -> list[dict[str, Any]]:
        """What of `parts` would have to be fetched: hub id, parts, about how many bytes, and the
        command."""
        wanted: dict[Components, list[str]] = {}
        for part in parts:
            whose = self.components if part == "transformer" else self.codec_components
            if part == "transformer" and self.file is not None:
                continue
            if whose.missing([part]):
                wanted.setdefault(whose, []).append(part)
        return [
            {
                "source": whose.source,
                "parts": names,
                "bytes": sum(PUBLISHED[self.name].bytes[name] for name in names),
                "command": whose.command(names),
            }
            for whose, names in wanted.items()
        ]

    def prepare(self, parts: Sequence[str] = COMPONENTS) -> None:
        """Fetch what of `parts` is missing, before any work begins.

        Raises:
            ZooError: something is not there and cannot be fetched; one line for all of it.
        """
        for part in parts:
            if part != "transformer":
                self.codec_components.folder(part)
            elif self.file is None:
                self.components.folder(part)

    def codec_modules(self) -> Mapping[str, torch.nn.Module]:
        """Text encoder (bfloat16, as on a GPU) and VAE (float32) without data, for planning."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
        from transformers import UMT5Config, UMT5EncoderModel

        text = self.codec_components.config("text_encoder") or TEXT_ENCODER
        vae = self.codec_components.config("vae")
        with torch.device("meta"):
            encoder: Any = UMT5EncoderModel(UMT5Config(**text))
            return {
                "text_encoder": encoder.to(torch.bfloat16),
                "vae": AutoencoderKLWan.from_config(vae or PUBLISHED[self.name].vae),
            }

    def _transformer_config(self) -> dict[str, Any]:
        """The local transformer's own configuration, else the published one."""
        known = dict(PUBLISHED[self.name].transformer)
        if self.file is not None:
            config = find_checkpoint(self.file).config
            return known if config is None else known | read_arguments(config)
        if folder := self.components.find("transformer"):
            return read_arguments(folder / "config.json")
        return known


class LargePublishedSize(PublishedSize):
    """The 14 B model."""

    name = "wan2.1-t2v-14b"


class HighResolutionSize(PublishedSize):
    """Wan 2.2's 5 B model, from text: a VAE of 16 x 16 x 4 with 48 channels, 24 frames a second."""

    Config = HighResolutionConfig
    name = "wan2.2-ti2v-5b"
    frame_rate = 24.0


def _is_other_folder(path: Path) -> bool:
    """Whether a folder is none of diffusers: Wan's own layout, one file, shards, a run."""
    if not path.is_dir() or (path / "transformer").is_dir():
        return False
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(config, dict) or config.get("_class_name") != "WanTransformer3DModel"
