"""`salt-zoo prepare latents`: videos through a backbone's video encoder, or latents of an LMDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from salt_zoo.config.parts import Part, configure_part
from salt_zoo.core import first_frame
from salt_zoo.core.base.config import StrictModel, said
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import Backbone
from salt_zoo.io.files.storage import digest
from salt_zoo.io.latent_lmdb import open_lmdb
from salt_zoo.io.packed import PackedFolder
from salt_zoo.io.videos.captioned_videos import find_videos
from salt_zoo.io.videos.video_reading import read_video
from salt_zoo.plugin.manager import Zoo
from salt_zoo.preparation.lmdb_rows import check_shape, clean_latents, images_of
from salt_zoo.preparation.shards import Progress, prepare_shards

#: What makes the pixels `[items, channels, frames, height, width]` of some items.
Read = Callable[[range], Tensor]
#: What makes latents `[items, C, F, H, W]` and first frames `[items, *image_shape]` of some items;
#: no frames where the backbone needs none.
Encode = Callable[[range], tuple[Tensor, Tensor | None]]


#: Options that have a say in one source alone.
_OF_SOURCE = {"count": "dataset", "seed": "dataset", "channels": "videos"}


class PrepareLatentsConfig(StrictModel):
    """What is encoded: videos with captions, draws from a dataset, or latents of an LMDB."""

    #: Whose video encoder; its size decides height, width and frames.
    backbone: Part
    #: A folder of videos with a `.txt` of the same name beside each, a .csv or .tsv with the
    #: columns `path` and `caption`, or webdataset's .tar files.
    videos: Path | None = None
    #: Instead of `videos`: its training split.
    dataset: Part | None = None
    #: Instead of both: an LMDB folder of CausVid's or Self Forcing's form, or a folder of such
    #: folders. The latents must be of the backbone's VAE, which an LMDB does not say; of ODE pairs
    #: the last state is taken.
    lmdb: Path | None = None
    #: Videos that are drawn from `dataset`.
    count: Annotated[int, Field(ge=1)] = 2048
    #: Of the draws from `dataset`, keyed by row.
    seed: int = 0
    #: bfloat16 and float16 take half the space; an LMDB's numbers are float16.
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    #: Channels of the pixels of `videos`: 3 for colours, 1 for grey values.
    channels: Literal[1, 3] = 3
    #: Videos that are encoded at a time.
    batch_size: Annotated[int, Field(ge=1)] = 1
    #: Videos of one file, which one process makes.
    shard_size: Annotated[int, Field(ge=1)] = 128

    @model_validator(mode="after")
    def _one_source(self) -> PrepareLatentsConfig:
        if [self.dataset, self.videos, self.lmdb].count(None) != 2:
            raise ValueError("give one of videos, dataset and lmdb")
        for option, source in _OF_SOURCE.items():
            if option in self.model_fields_set and getattr(self, source) is None:
                raise said(f"{option} is of {source}; leave it out, or give {source}")
        return self


def prepare_latents(
    config: PrepareLatentsConfig, zoo: Zoo, folder: Path, device: Any, progress: Progress
) -> PackedFolder:
    """Write what `folder` lacks of the videos' latents, `latents` `[C, F, H, W]` an item.

    For a backbone that generates from a first frame an item also has what `encode_images` makes of
    the video's, under the condition's names.
    """
    options = configure_part(zoo.backbones, config.backbone, zoo, "prepare latents: backbone")
    backbone: Backbone = zoo.backbones.create(config.backbone["name"], options, zoo).to(device)
    with ExitStack() as held:
        if config.lmdb is not None:
            prompts, encoded, source = _stored(config, backbone, held)
        else:
            prompts, read, source = (
                _videos(config, backbone) if config.videos else _drawn(config, zoo)
            )
            encoded = _encoder(backbone, read)
        header = {
            "kind": "latents",
            "encoder": dict(backbone.encoder("video")),
            "source": source,
            "shape": list(backbone.latent_shape),
            "dtype": config.dtype,
            "batch_size": config.batch_size,
            "shard_size": config.shard_size,
        }
        if backbone.image_shape is not None:
            header["image encoder"] = dict(backbone.encoder("image"))
        dtype: torch.dtype = getattr(torch, config.dtype)

        def make(rows: range) -> Mapping[str, Tensor]:
            latents, images = encoded(rows)
            if latents.shape[1:] != backbone.latent_shape:
                raise ZooError(
                    f"{folder}: the latents are {list(latents.shape[1:])} and the backbone's "
                    f"{list(backbone.latent_shape)}; choose videos of its size"
                )
            found = {"latents": latents}
            if images is not None:
                found |= first_frame.encode(backbone, images)
            return {name: value[:, None].to(dtype) for name, value in found.items()}

        return prepare_shards(folder, header, prompts, config.batch_size, make, progress)


def _encoder(backbone: Backbone, read: Read) -> Encode:
    def encode(rows: range) -> tuple[Tensor, Tensor | None]:
        video = send(read(rows), backbone.device)
        images = None if backbone.image_shape is None else video[:, :, 0]
        return backbone.encode_video(video), images

    return encode


def _stored(
    config: PrepareLatentsConfig, backbone: Backbone, held: ExitStack
) -> tuple[list[str], Encode, Any]:
    assert config.lmdb is not None
    lmdb = held.enter_context(open_lmdb(config.lmdb, "prepare latents: lmdb"))
    check_shape(lmdb, backbone)

    def encode(rows: range) -> tuple[Tensor, Tensor | None]:
        return clean_latents(lmdb, rows), images_of(lmdb, rows, backbone)

    return lmdb.prompts(), encode, {"lmdb": lmdb.fingerprint()}


def _videos(config: PrepareLatentsConfig, backbone: Backbone) -> tuple[list[str], Read, Any]:
    assert config.videos is not None
    found = find_videos(config.videos)
    size = backbone.frame_size
    if size is None:
        raise ZooError("prepare latents: the backbone does not tell its frame size; give a dataset")
    frames = backbone.pixel_frames(backbone.latent_shape[1])

    def read(rows: range) -> Tensor:
        some = [found[row] for row in rows]
        pixels = []
        for video in some:
            with video.open() as file:
                pixels.append(
                    read_video(file, str(video), frames, backbone.frame_rate, size, config.channels)
                )
        return torch.stack(pixels)

    names = [[str(one), one.size or one.file.stat().st_size] for one in found]
    source = {"videos": digest(names), "channels": config.channels, "frames": frames}
    return [one.caption for one in found], read, source


def _drawn(config: PrepareLatentsConfig, zoo: Zoo) -> tuple[list[str], Read, Any]:
    assert config.dataset is not None
    options = configure_part(zoo.datasets, config.dataset, zoo, "prepare latents: dataset")
    name = config.dataset["name"]
    dataset = zoo.datasets.create(name, options, zoo)
    rng = KeyedRNG(config.seed, ("latents",), range(config.count)).at("data")

    def read(rows: range) -> Tensor:
        video: Tensor | None = dataset.sample(rng.for_rows(rows), "train", True).video
        if video is None:
            raise ZooError(f"dataset {name!r}: has no videos; choose one with videos, or give some")
        return video

    source = {
        "dataset": {"name": name, **options.model_dump(mode="json")},
        "fingerprint": dict(dataset.fingerprint()),
        "seed": config.seed,
    }
    return list(dataset.sample(rng, "train", False).prompts), read, source
