"""The dataset `prepared`: the prompts or latents of a folder that `salt-zoo prepare` wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import Backbone, Condition, Sample
from salt_zoo.io.packed_reader import PackedReader
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.data.prepared_text import PreparedText, check_encoder
from salt_zoo_wan.encoders.prompts import split_prompts

#: What the header has where items have first frames.
_IMAGES = "image encoder"


class PreparedConfig(StrictModel):
    """Options of the dataset `prepared`."""

    #: What `salt-zoo prepare text --out FOLDER` or `salt-zoo prepare latents --out FOLDER` wrote.
    folder: Path
    #: Different prompts kept back for validation, and as many for test.
    held_out: Annotated[int, Field(ge=1)] = 16


class Prepared:
    """Prompts, with their latents where the folder has them; its splits share no prompt.

    Of text a row is a prompt, drawn as the dataset `prompts` draws it; of latents it is an item,
    several of which may have one prompt.

    Raises:
        ZooError: the folder is not there, not finished or not whole, or has too few prompts.
    """

    version = 1
    Config = PreparedConfig

    def __init__(self, config: PreparedConfig, zoo: Zoo) -> None:
        self.config = config
        try:
            self.reader = PackedReader(config.folder)
        except ZooError as error:
            raise ZooError(f"dataset.folder: {error}") from None
        self._has_latents = self.reader.kind == "latents"
        items = defaultdict(list)
        for item, prompt in enumerate(self.reader.prompts):
            items[prompt].append(item)
        if not self._has_latents:
            for prompt in self.reader.header["unconditional"]:
                items.pop(prompt, None)
        self._splits = split_prompts([*items], config.held_out, str(config.folder))
        self._items = {
            split: [item for prompt in prompts for item in items[prompt]]
            for split, prompts in self._splits.items()
        }

    def bind(self, backbone: Backbone) -> None:
        """Check the encoder; a folder of text gives the backbone its encodings."""
        if not self._has_latents:
            if backbone.encodings is None:
                PreparedText(self.config.folder).bind(backbone)
            return
        check_encoder(self.reader, backbone, "video")
        shape = list(backbone.latent_shape)
        if self.reader.header["shape"] != shape:
            raise ZooError(
                f"{self.config.folder}: its latents are {self.reader.header['shape']} and this "
                f"backbone's {shape}; set height, width and frames in backbone.options, or prepare "
                "latents of that size"
            )
        if backbone.image_shape is not None and _IMAGES in self.reader.header:
            check_encoder(self.reader, backbone, "image")

    def prompts(self, split: str) -> list[str]:
        return list(self._splits[split])

    def sample(self, rng: KeyedRNG, split: str, videos: bool = True) -> Sample:
        """A prompt a row, with its latents if they are wanted.

        Raises:
            ZooError: the method wants data and the folder has none, or an item is damaged.
        """
        known = self._items[split]
        rows = [known[place] for place in rng.randint(len(known), "prompt")]
        prompts = [self.reader.prompts[row] for row in rows]
        if not videos:
            return Sample(prompts, None)
        if not self._has_latents:
            raise ZooError(
                f"dataset 'prepared': the method needs data and {self.config.folder} holds text; "
                "name a folder of 'salt-zoo prepare latents' in dataset.folder (and this one in "
                "execution.prepared_text), or choose a data-free method such as dmd"
            )
        found = self._read(rows)
        latents = send(found.pop("latents"), rng.device)
        return Sample(prompts, None, latents=latents, first_frame=found or None)

    def first_frames(self, prompts: Sequence[str], rng: KeyedRNG, split: str) -> Condition:
        """Of one of the items with each of the prompts, drawn by row.

        Raises:
            ZooError: the folder holds none, or an item is damaged.
        """
        if _IMAGES not in self.reader.header:
            raise ZooError(
                f"{self.config.folder}: holds no first frames, which this backbone generates from; "
                "prepare latents with it in another folder with 'salt-zoo prepare latents'"
            )
        items = defaultdict(list)
        for item in self._items[split]:
            items[self.reader.prompts[item]].append(item)
        draws = rng.randint(2**31, "first frame")
        rows = [
            items[text][draw % len(items[text])] for text, draw in zip(prompts, draws, strict=True)
        ]
        found = self._read(rows)
        return {name: value for name, value in found.items() if name != "latents"}

    def _read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The tensors of some items, each `[B, ...]`."""
        items = [self.reader.read(row) for row in rows]
        return {name: torch.stack([item[name][0] for item in items]) for name in items[0]}

    def real(
        self, prompts: Sequence[str], rng: KeyedRNG, split: str, frames: int | None = None
    ) -> None:
        """None: there are no pixels."""
        return None

    def fingerprint(self) -> dict[str, str]:
        return {"prepared": self.reader.folder.fingerprint()}
