"""A published size of Wan, or any model of the same structure, and its codecs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.protocols import Condition, Encoder
from salt_zoo.io.files.regular import expanded
from salt_zoo.io.files.storage import digest
from salt_zoo.io.known_digests import known_digest
from salt_zoo.plugin.manager import Zoo
from salt_zoo_wan.checkpoint.config_json import read_arguments, without_defaults
from salt_zoo_wan.checkpoint.files import find_checkpoint
from salt_zoo_wan.checkpoint.formats import ENDINGS
from salt_zoo_wan.checkpoint.load import load_transformer
from salt_zoo_wan.components import Components, Download
from salt_zoo_wan.encoders.image_condition import ChannelsOfImage, ImageCodec
from salt_zoo_wan.encoders.image_encoder import ImageEncoder
from salt_zoo_wan.encoders.text_encoder import TextEncoder
from salt_zoo_wan.encoders.tiny_decoder import TinyDecoder, read_tiny_decoder
from salt_zoo_wan.encoders.vae import VideoCodec
from salt_zoo_wan.published.published_options import (
    PublishedSizeConfig,
)
from salt_zoo_wan.published_configs import (
    IMAGE_ENCODER,
    PUBLISHED,
    TEXT_ENCODER,
    Published,
)
from salt_zoo_wan.sizes import WanSizeDefaults
from salt_zoo_wan.transformer.prompt_cache import MAX_TOKENS


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
        path = expanded(weights)
        #: A file, an index of shards, or a folder that is not diffusers', else None.
        self.file = path if path.suffix in (*ENDINGS, ".json") or _is_other_folder(path) else None
        if self.file is not None and not self.file.exists():
            raise ZooError(f"{path}: there is no such file; see backbone.options.weights")
        #: The parts of its pipeline, the network of its flow first.
        self.codecs = published.codecs
        self.transformers = self._transformers(published)
        self.parts = (*self.transformers, *self.codecs)
        sizes, codecs = published.bytes, self.codecs
        default = Components(published.hub, bytes=sizes, needed=codecs)
        self.components = (
            default
            if self.file
            else Components(weights, config.revision, sizes, self.parts, self.transformers[0])
        )
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
        self.video = VideoCodec(self.codec_components, self._tiny_decoder(), published.vae)
        #: What makes the condition of a first frame; None for a size from text.
        self.image = self._first_frame_codec()
        self.image_shape = None if self.image is None else (3, *self.frame_size)

    def transformer(self, start: Literal["teacher", "random"]) -> WanTransformer3DModel:
        """A new transformer in float32.

        Raises:
            ZooError: the weights are not there and cannot be fetched, or are damaged.
        """
        if start == "random":
            return WanTransformer3DModel(**self.transformer_config)
        return load_transformer(self.transformer_files(), self.transformer_config).float()

    def transformer_files(self) -> Path:
        if self.file is not None:
            return self.file
        (own,) = self.transformers
        return self.components.folder(own)

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

    def encode_images(self, images: Tensor) -> Condition:
        """On the meta device (for planning) nothing is loaded."""
        assert self.image is not None
        return self.image.encode(images, self.latent_shape)

    def encoder(self, of: Encoder) -> dict[str, str]:
        components = [self.codec_components.fingerprint(part) for part in self._parts_of(of)]
        return {name: value for found in components for name, value in found.items()}

    def codecs_of(self, of: Encoder) -> tuple[str, ...]:
        # tokenizer and image processor are no modules
        found = tuple(part for part in self._parts_of(of) if part == "vae" or "encoder" in part)
        decodes_otherwise = of == "video" and self.video.tiny is not None
        return (*found, "tiny_decoder") if decodes_otherwise else found

    def _parts_of(self, of: Encoder) -> tuple[str, ...]:
        return {
            "text": ("text_encoder", "tokenizer"),
            "video": ("vae",),
            "image": ("vae", *(part for part in self.parts if part.startswith("image_"))),
        }[of]

    def encode_video(self, video: Tensor) -> Tensor:
        """Pixels to latents; what has the latents' shape already (a dataset of latents) is kept."""
        if tuple(video.shape[1:]) == self.latent_shape:
            return video
        return self.video.encode(video)

    def decode_video(self, latents: Tensor) -> Tensor:
        return self.video.decode(latents)

    def frame_decoder(self, device: torch.device | str) -> Callable[[Tensor], Tensor]:
        return self.video.frame_decoder(device)

    def pixel_frames(self, latent_frames: int) -> int:
        return max(0, 4 * latent_frames - 3)

    def fingerprint(self) -> dict[str, str]:
        # a config.json may leave out what is the default: whether it was there has no say
        found = {"transformer_config": digest(without_defaults(self.transformer_config))}
        if self.file is not None:
            for part, place in self._files().items():
                for file in find_checkpoint(place).files:
                    found[f"{part}/{file.name}"] = known_digest(file)
        else:
            for part in self.transformers:
                found |= self.components.fingerprint(part)
        for part in self.codecs:
            found |= self.codec_components.fingerprint(part)
        if self.config.tiny_decoder is not None:
            path = expanded(self.config.tiny_decoder)
            found[f"tiny_decoder/{path.name}"] = known_digest(path)
        return found

    def _files(self) -> dict[str, Path]:
        """Where the weights of its networks lie if they are no part of a pipeline, by the names
        under which digests are kept."""
        assert self.file is not None
        return {"transformer": self.file}

    def codec_folders(self) -> dict[str, Path]:
        """The folders of text encoder, tokenizer, VAE and image encoder, as far as they are on this
        machine."""
        found = {part: self.codec_components.find(part) for part in self.codecs}
        return {part: folder for part, folder in found.items() if folder is not None}

    def downloads(self, parts: Sequence[str] = ()) -> list[Download]:
        found = []
        for whose, names in self._sources(parts).items():
            missing = whose.missing(names)
            if missing:
                sizes = {name: PUBLISHED[self.name].bytes[name] for name in missing}
                found.append(Download(whose, sizes))
        return found

    def prepare(self, parts: Sequence[str] = ()) -> None:
        """Fetch what of `parts` is missing, before any work begins.

        Raises:
            ZooError: something is not there and cannot be fetched; one line for all of it.
        """
        for whose, names in self._sources(parts).items():
            for name in names:  # the message tells how to get these, and no others
                replace(whose, needed=tuple(names)).folder(name)

    def _sources(self, parts: Sequence[str]) -> dict[Components, list[str]]:
        """Where `parts` (all, where none is named) come from, but for weights in a file."""
        found: dict[Components, list[str]] = {}
        for part in parts or self.parts:
            if part not in self.transformers:
                found.setdefault(self.codec_components, []).append(part)
            elif self.file is None:
                found.setdefault(self.components, []).append(part)
        return found

    def codec_modules(self) -> Mapping[str, torch.nn.Module]:
        """Text encoder (bfloat16, as on a GPU), VAE and image encoder (float32) without data, for
        planning; and the tiny decoder, where it is the one that decodes."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
        from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

        text = self.codec_components.config("text_encoder") or TEXT_ENCODER
        vae = self.codec_components.config("vae")
        with torch.device("meta"):
            encoder: Any = UMT5EncoderModel(UMT5Config(**text))
            found: dict[str, torch.nn.Module] = {
                "text_encoder": encoder.to(torch.bfloat16),
                "vae": AutoencoderKLWan.from_config(vae or PUBLISHED[self.name].vae),
            }
            if "image_encoder" in self.parts:
                clip = self.codec_components.config("image_encoder") or IMAGE_ENCODER
                found["image_encoder"] = CLIPVisionModel(CLIPVisionConfig(**clip))
        if self.video.tiny is not None:
            found["tiny_decoder"] = deepcopy(self.video.tiny).to("meta")
        return found

    def _tiny_decoder(self) -> TinyDecoder | None:
        if self.config.tiny_decoder is None:
            return None
        path, channels = expanded(self.config.tiny_decoder), self.latent_shape[0]
        return read_tiny_decoder(path, channels, self.config.spatial_factor)

    def _first_frame_codec(self) -> ImageCodec | None:
        """
        Raises:
            ZooError: the transformer is of the other kind.
        """
        takes_image = _takes_channels(self.transformer_config)
        if takes_image != _takes_channels(PUBLISHED[self.name].transformer):
            kinds = ("a text-to-video", "an image-to-video")
            raise ZooError(
                f"{self.config.weights}: {kinds[takes_image]} model, and {self.name!r} is "
                f"{kinds[not takes_image]} size; choose a size of its kind"
            )
        if not takes_image:
            return None
        width = self.transformer_config.get("image_dim")
        encoder = None if width is None else ImageEncoder(self.codec_components, width)
        return ChannelsOfImage(self.video, encoder)

    def _transformers(self, published: Published) -> tuple[str, ...]:
        return published.transformers

    def _transformer_config(self) -> dict[str, Any]:
        """The local transformer's own configuration, else the published one."""
        known = dict(PUBLISHED[self.name].transformer)
        config = self.config_file()
        if config is None:
            return known
        found = read_arguments(config, known)
        return found if self.file is None else known | found

    def config_file(self) -> Path | None:
        """The `config.json` beside the local transformer, of two that of the first."""
        if self.file is not None:
            return find_checkpoint(self.file).config
        folder = self.components.find(self.transformers[0])
        return folder / "config.json" if folder else None


def _takes_channels(config: Mapping[str, Any]) -> bool:
    """Whether a transformer has a first frame's channels beside the noise."""
    channels: int = config["in_channels"]
    return channels != config["out_channels"]


def _is_other_folder(path: Path) -> bool:
    """Whether a folder is none of diffusers: Wan's own layout, one file, shards, a run."""
    if not path.is_dir() or (path / "transformer").is_dir():
        return False
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(config, dict) or config.get("_class_name") != "WanTransformer3DModel"
