"""The dataset `trajectories`: stored trajectories and their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from salt_zoo.config.parts import configure_part
from salt_zoo.core.config import StrictModel
from salt_zoo.core.errors import ZooError
from salt_zoo.core.protocols import Dataset, Sample, Split
from salt_zoo.core.rng import KeyedRNG
from salt_zoo.core.transfers import send
from salt_zoo.plugin.manager import Zoo
from salt_zoo_ode.store import HEADER, read_folder


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

    @cached_property
    def source(self) -> Dataset:
        """The dataset of the prompts; it need not be there to train."""
        part = self.folder.header["dataset"]
        where = f"{self.folder.path / HEADER}: dataset"
        options = configure_part(self.zoo.datasets, part, self.zoo, where)
        made: Dataset = self.zoo.datasets.create(part["name"], options, self.zoo)
        return made

    def prompts(self, split: Split) -> list[str]:
        if split == "train":
            return list(dict.fromkeys(self.folder.header["prompts"]))
        return self.source.prompts(split)

    def sample(self, rng: KeyedRNG, split: Split, videos: bool = True) -> Sample:
        """A stored trajectory and its prompt a row.

        Raises:
            ZooError: the method wants videos.
        """
        if split != "train":
            return self.source.sample(rng, split, videos)
        if videos:
            raise ZooError(
                "dataset 'trajectories': the method needs videos and these are trajectories; "
                "choose the method ode-regression or a data-free one, or another dataset"
            )
        rows = rng.randint(self.folder.count, "trajectory")
        return Sample(
            prompts=[self.folder.header["prompts"][row] for row in rows],
            video=None,
            trajectory=send(self.folder.read(rows), rng.device),
            trajectory_times=self.folder.times,
        )

    def real(
        self, prompts: Sequence[str], rng: KeyedRNG, split: str, frames: int | None = None
    ) -> Tensor | None:
        if frames is None:
            return self.source.real(prompts, rng, split)
        return self.source.real(prompts, rng, split, frames)

    def fingerprint(self) -> dict[str, str]:
        return {"trajectories": self.folder.fingerprint()}
