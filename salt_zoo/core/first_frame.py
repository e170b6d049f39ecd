"""First frames of videos as a part of the condition, for backbones that generate from an image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.base.transfers import send
from salt_zoo.core.dataset import Dataset, EncodedFirstFrames, Sample
from salt_zoo.core.networks.backbone import Backbone
from salt_zoo.core.networks.network import Condition

#: What the first frames of some videos add to the condition, by the videos' places in a list.
FirstFrames = Callable[[range], Condition]

_HOW = (
    "choose a dataset with videos, or one that 'salt-zoo prepare latents' has written for this "
    "backbone"
)


def of_sample(backbone: Backbone, sample: Sample) -> Condition:
    """What the first frames of a dataset's rows add to the condition; nothing for a backbone that
    generates from prompts alone.

    Raises:
        ZooError: the dataset has no first frames, or of another size.
    """
    if backbone.image_shape is None:
        return {}
    if sample.first_frame is not None:
        return {name: send(value, backbone.device) for name, value in sample.first_frame.items()}
    return encode(backbone, _pixels(sample))


def check_sample(backbone: Backbone, sample: Sample) -> None:
    """Refuse what `of_sample` refuses; nothing is encoded.

    Raises:
        ZooError: the dataset has no first frames, or of another size.
    """
    if backbone.image_shape is not None and sample.first_frame is None:
        _check_shape(backbone, _pixels(sample))


def of_prompts(
    backbone: Backbone, dataset: Dataset, prompts: Sequence[str], rng: KeyedRNG, split: str
) -> FirstFrames | None:
    """The first frames of the real videos that `dataset.real` has for the prompts, one row of `rng`
    each; None for a backbone that generates from prompts alone.

    Raises:
        ZooError: when they are asked for: the dataset has none, or of another size.
    """
    if backbone.image_shape is None:
        return None
    draws, rows = rng.at("real"), list(rng.rows)

    def some(places: range) -> Condition:
        texts = [prompts[place] for place in places]
        its = draws.for_rows([rows[place] for place in places])
        return of_real(backbone, dataset, texts, its, split)

    return some


def of_real(
    backbone: Backbone, dataset: Dataset, prompts: Sequence[str], rng: KeyedRNG, split: str
) -> Condition:
    """The first frames of the real videos that `dataset.real` has for the prompts under the same
    rows' `rng`, encoded here or before.

    Raises:
        ZooError: the dataset has none, or of another size.
    """
    if isinstance(dataset, EncodedFirstFrames):
        found = dataset.first_frames(prompts, rng, split)
        return {name: send(value, backbone.device) for name, value in found.items()}
    video = dataset.real(prompts, rng, split, 1)
    if video is None:
        raise ZooError(f"the dataset has no real videos to begin from; {_HOW}")
    return encode(backbone, video[:, :, 0])


def check_real(
    backbone: Backbone, dataset: Dataset, prompts: Sequence[str], rng: KeyedRNG, split: str
) -> None:
    """Refuse what `of_real` refuses; no pixels are encoded.

    Raises:
        ZooError: the dataset has no first frames, or of another size.
    """
    video = dataset.real(prompts, rng, split, 1)
    if video is None:  # it has them encoded, or it has none
        of_real(backbone, dataset, prompts, rng, split)
    else:
        _check_shape(backbone, video[:, :, 0])


def of_image(backbone: Backbone, image: Tensor) -> FirstFrames:
    """One image `[channels, height, width]` in [0, 1] for all videos; encoded once, when asked."""
    encoded = functools.cache(lambda: encode(backbone, image[None]))

    def some(places: range) -> Condition:
        found = encoded()
        return {name: row.expand(len(places), *row.shape[1:]) for name, row in found.items()}

    return some


def of_images(backbone: Backbone, images: Sequence[Callable[[], Tensor]]) -> FirstFrames:
    """An image `[channels, height, width]` in [0, 1] for each video, read when it is asked for."""

    def some(places: range) -> Condition:
        return encode(backbone, torch.stack([images[place]() for place in places]))

    return some


def encode(backbone: Backbone, images: Tensor) -> Condition:
    """`Backbone.encode_images` of `[B, channels, height, width]`, on the backbone's device.

    Raises:
        ZooError: the backbone takes no images, or of another size.
    """
    if backbone.image_shape is None:
        raise ZooError("the backbone generates from prompts alone and takes no image")
    _check_shape(backbone, images)
    return backbone.encode_images(send(images, backbone.device))


def check(backbone: Backbone, given: FirstFrames | None) -> FirstFrames:
    """What was given, or nothing for a backbone that generates from prompts alone.

    Raises:
        ZooError: the backbone needs first frames and there are none, or the other way round.
    """
    if (given is None) != (backbone.image_shape is None):
        raise ZooError(
            "the backbone generates from a first frame, and none was given"
            if given is None
            else "the backbone generates from prompts alone and takes no image"
        )
    return given or (lambda places: {})


def _pixels(sample: Sample) -> Tensor:
    if sample.video is None:
        raise ZooError(f"dataset: it has no first frames, which the backbone needs; {_HOW}")
    return sample.video[:, :, 0]


def _check_shape(backbone: Backbone, images: Tensor) -> None:
    shape, wanted = tuple(images.shape[1:]), backbone.image_shape
    if wanted is not None and shape != wanted:
        raise ZooError(
            f"the first frames are {_words(shape)}, and the backbone takes {_words(wanted)}"
        )


def _words(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels with {channels} channels"
