"""The dataset `trajectories`: stored trajectories and their prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from salt_zoo.config.parts import configure_part
from salt_zoo.core import first_frame
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import Backbone, Condition, Dataset, Encoded, Sample, Split
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.data.prepared_text import check_encoder
from salt_zoo_ode.store import HEADER, IMAGES, read_folder


class TrajectoriesConfig(StrictModel):
    """Options of the dataset `trajectories`."""

    #: What `salt-zoo prepare trajectories --out FOLDER` has written.
    folder: Path


class Trajectories:
    """The training split is what is stored; everything else is asked of the dataset whose prompts
    the trajectories were made for.

    Raises:
        ZooError: the folder is not there, not finished, or damaged.
    """

    version = 1
    Config = TrajectoriesConfig

    def __init__(self, config: TrajectoriesConfig, zoo: Zoo) -> None:
        self.zoo = zoo
        self.folder = read_folder(config.folder)
        self.folder.check()
        self._bound: Backbone | None = None

    def bind(self, backbone: Backbone) -> None:
        """Check that the trajectories begin from first frames as the backbone encodes them.

        Raises:
            ZooError: they begin from none and the backbone needs them, or the other way round, or
                another encoder made them.
        """
        self._bound = backbone
        if (backbone.image_shape is not None) != (IMAGES in self.folder.header):
            begin, needs = "prompts alone", "a first frame"
            if backbone.image_shape is None:
                begin, needs = needs, begin
            raise ZooError(
                f"{self.folder.path}: its trajectories begin from {begin}, and this backbone "
                f"generates from {needs}; make others with it"
            )
        if backbone.image_shape is not None:
            check_encoder(self.folder, backbone, "image")

    @cached_property
    def source(self) -> Dataset:
        """The dataset of the prompts; it need not be there to train."""
        part = self.folder.header["dataset"]
        where = f"{self.folder.path / HEADER}: dataset"
        options = configure_part(self.zoo.datasets, part, self.zoo, where)
        made: Dataset = self.zoo.datasets.create(part["name"], options, self.zoo)
        if isinstance(made, Encoded) and self._bound is not None:
            made.bind(self._bound)
        return made

    def prompts(self, split: Split) -> list[str]:
        if split == "train":
            return list(dict.fromkeys(self.folder.header["prompts"]))
        return self.source.prompts(split)

    def sample(self, rng: KeyedRNG, split: Split, videos: bool = True) -> Sample:
        """A stored trajectory and its prompt a row, with the first frame's condition where they
        have one.

        Raises:
            ZooError: the method wants videos.
        """
        if split != "train":
            return self.source.sample(rng, split, videos)
        if videos and IMAGES not in self.folder.header:
            raise ZooError(
                "dataset 'trajectories': the method needs videos and these are trajectories; "
                "choose the method ode-regression or a data-free one, or another dataset"
            )
        rows = self._rows(rng)
        return Sample(
            prompts=[self.folder.header["prompts"][row] for row in rows],
            video=None,
            trajectory=send(self.folder.read(rows), rng.device),
            trajectory_times=self.folder.times,
            first_frame=self.folder.first_frames(rows) or None,
        )

    def draw_prompts(self, rng: KeyedRNG, split: Split) -> list[str]:
        """Those of `sample`; no trajectory is read."""
        if split != "train":
            return self.source.sample(rng, split, False).prompts
        return [self.folder.header["prompts"][row] for row in self._rows(rng)]

    def _rows(self, rng: KeyedRNG) -> list[int]:
        return rng.randint(self.folder.count, "trajectory")

    def first_frames(self, prompts: Sequence[str], rng: KeyedRNG, split: str) -> Condition:
        """Of the stored trajectories with these prompts; of other splits, of their real videos.

        Raises:
            ZooError: there are none.
        """
        if split != "train":
            assert self._bound is not None
            return first_frame.of_real(self._bound, self.source, prompts, rng, split)
        known = defaultdict(list)
        for row, prompt in enumerate(self.folder.header["prompts"]):
            known[prompt].append(row)
        some = [known[prompt] for prompt in prompts]
        draws = rng.randint(2**31, "first frame")
        return self.folder.first_frames(
            [rows[draw % len(rows)] for rows, draw in zip(some, draws, strict=True)]
        )

    def real(
        self, prompts: Sequence[str], rng: KeyedRNG, split: str, frames: int | None = None
    ) -> Tensor | None:
        if frames is None:
            return self.source.real(prompts, rng, split)
        return self.source.real(prompts, rng, split, frames)

    def fingerprint(self) -> dict[str, str]:
        return {"trajectories": self.folder.fingerprint()}
