"""`salt-zoo prepare trajectories`: make trajectories, or take those of an LMDB, and keep them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator

from salt_zoo.config.parts import Part, configure_part
from salt_zoo.core import first_frame
from salt_zoo.core.base.config import said
from salt_zoo.core.base.ranks import is_main_process
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.networks.condition import encode, unconditional
from salt_zoo.core.networks.precision import Precision, resolve_precision, with_precision
from salt_zoo.core.protocols import Backbone, Dataset, Encoded
from salt_zoo.io.dealing import deal
from salt_zoo.io.distributed import on_main
from salt_zoo.io.files.headers import header_of_something
from salt_zoo.io.latent_lmdb import open_lmdb
from salt_zoo.io.printing import say, show
from salt_zoo.plugin.isolation.foreign import fitting_batch
from salt_zoo.plugin.manager import Zoo
from salt_zoo.preparation.shards import Progress
from salt_zoo.training.data.prepared_text import PreparedText
from salt_zoo_ode.store import HEADER, IMAGES, Shard, open_folder
from salt_zoo_ode.stored_pairs import StoredPairs
from salt_zoo_ode.trajectories import TrajectoryConfig, Whose, draw_trajectories

#: Options of trajectories that are made here, which mean nothing for those of an LMDB.
_OF_SOLVING = ("text", "of", "teacher_steps", "count", "guidance_scale", "precision", "seed")


class TrajectoryRecipeConfig(TrajectoryConfig):
    """Options of the recipe `trajectories`."""

    #: Whose network makes them; of an LMDB's: the one that is trained on them.
    backbone: Part
    #: A folder of `salt-zoo prepare text`: its prompts need no text encoder.
    text: Path | None = None
    #: Whose training prompts (for a backbone that generates from images: first frames, too) the
    #: trajectories are for; of an LMDB's: whose other splits a training measures on.
    dataset: Part
    #: An LMDB folder of CausVid's or Self Forcing's ODE pairs, or a folder of such folders, whose
    #: trajectories are taken in place of making some.
    lmdb: Path | None = None
    #: Whether they are the teacher's or the initial student's.
    of: Whose = "teacher"
    #: CausVid made about 16,000.
    count: Annotated[int, Field(ge=1)] = 2048
    #: Trajectories that are made at a time, and kept in one file.
    batch_size: Annotated[int, Field(ge=1)] = 32
    #: null is what the backbone's teacher is usually sampled with.
    guidance_scale: float | None = None
    #: Of the network's passes; what is kept is float32. auto is bf16 on CUDA.
    precision: Precision = "auto"
    seed: int = 0

    @model_validator(mode="after")
    def _of_an_lmdb(self) -> TrajectoryRecipeConfig:
        if self.lmdb is None:
            return self
        if unused := [name for name in _OF_SOLVING if name in self.model_fields_set]:
            raise said(f"{unused[0]} is of trajectories that are made here; with lmdb leave it out")
        if self.times is not None and "timestep_shift" in self.model_fields_set:
            raise said("timestep_shift is of a step list; with lmdb and times leave it out")
        if self.times is None and "timestep_shift" not in self.model_fields_set:
            raise said(
                "lmdb: an LMDB does not say its times; set timestep_shift to that of the scheduler "
                "that made it (8 in Self Forcing's generate_ode_pairs.py), or times where they are "
                "of no step list (CausVid's: [1, 0.757, 0.522])"
            )
        return self


class TrajectoryRecipe:
    """Trajectories of a seed, row by row: prompts and noise are keyed by the row, so that a resumed
    folder is bitwise an uninterrupted one."""

    Config = TrajectoryRecipeConfig

    def __init__(self, config: TrajectoryRecipeConfig, zoo: Zoo) -> None:
        self.config, self.zoo = config, zoo
        where = "recipe trajectories"
        self._backbone = configure_part(zoo.backbones, config.backbone, zoo, f"{where}: backbone")
        self._dataset = configure_part(zoo.datasets, config.dataset, zoo, f"{where}: dataset")

    def run(self, folder: Path, device: str) -> int:
        """`prepare`, as a recipe of `salt-zoo pretrain`."""
        from salt_zoo.cli.progress import training_progress
        from salt_zoo.training.devices import device_of_process

        with training_progress("trajectories", "trajectories") as progress:
            self.prepare(folder, device_of_process(device), progress)
        if is_main_process():
            show(folder)
        return 0

    def prepare(self, folder: Path, where: torch.device, progress: Progress) -> None:
        """Write what `folder` lacks; the processes of a distributed run share the work."""
        config = self.config
        backbone = self.zoo.backbones.create(config.backbone["name"], self._backbone, self.zoo)
        backbone.to(where)
        if config.text is not None:
            PreparedText(config.text).bind(backbone)
        dataset = self.zoo.datasets.create(config.dataset["name"], self._dataset, self.zoo)
        if isinstance(dataset, Encoded):
            dataset.bind(backbone)
        with ExitStack() as held:
            source: StoredPairs | _Solver
            if config.lmdb is not None:
                lmdb = held.enter_context(open_lmdb(config.lmdb, "recipe trajectories: lmdb"))
                source = StoredPairs(lmdb, backbone, config)
                if is_main_process():
                    times = ", ".join(f"{t:.4g}" for t in config.kept_times)
                    say(f"note: {config.lmdb}: its states are taken to be at times {times} and 0")
            else:
                source = _Solver(config, backbone, dataset, where)
            header = self._header(backbone, dataset) | source.header(where.type)
            made = on_main(lambda: open_folder(folder, header))
            with header_of_something(folder / HEADER, made.done):
                for shard in deal(made.missing):
                    with fitting_batch("recipe trajectories", len(made.shards[shard])):
                        found = source.make(made.shards[shard])
                    made.write(shard, found)
                    progress(made.done(), made.count, {})

    def _header(self, backbone: Backbone, dataset: Dataset) -> dict[str, Any]:
        """What every folder says of its trajectories."""
        config = self.config
        options = self._dataset.model_dump(mode="json")
        header = {
            "dataset": {"name": config.dataset["name"], **options},
            "times": config.kept_times,
            "batch_size": config.batch_size,
            "shape": [len(config.kept_times) + 1, *backbone.latent_shape],
        }
        if config.lmdb is None or config.times is None:
            header["timestep_shift"] = config.timestep_shift
        if config.lmdb is None:
            options = self._backbone.model_dump(mode="json")
            header["backbone"] = {"name": config.backbone["name"], **options}
            header["fingerprints"] = {
                "backbone": dict(backbone.fingerprint()),
                "dataset": dict(dataset.fingerprint()),
            }
        if backbone.image_shape is not None:
            header[IMAGES] = dict(backbone.encoder("image"))
        return header


class _Solver:
    """Trajectories that are made here: rows of a seed."""

    def __init__(
        self,
        config: TrajectoryRecipeConfig,
        backbone: Backbone,
        dataset: Dataset,
        where: torch.device,
    ) -> None:
        self.config, self.backbone, self.dataset, self.where = config, backbone, dataset, where
        self.rng = KeyedRNG(config.seed, ("trajectories",), range(config.count), where)
        given = config.guidance_scale
        self.guidance_scale = backbone.guidance_scale if given is None else given
        self._network: Any = None
        self.prompts = dataset.sample(self.rng.at("data"), "train", False).prompts
        if backbone.image_shape is not None:  # a dataset without first frames is told now
            first_frame.check_sample(backbone, self._data(range(1)))

    def header(self, device: str) -> dict[str, Any]:
        """All that decides what the trajectories are, beside the parts."""
        config = self.config
        return {
            "prompts": self.prompts,
            "of": config.of,
            "teacher_steps": config.teacher_steps,
            "guidance_scale": self.guidance_scale,
            "precision": resolve_precision(config.precision, device),
            "seed": config.seed,
            "count": config.count,
        }

    def make(self, rows: range) -> Shard:
        backbone = self.backbone
        network = self._made()
        image = (
            {}
            if backbone.image_shape is None
            else first_frame.of_sample(backbone, self._data(rows))
        )
        prompts = self.prompts[rows.start : rows.stop]
        states = draw_trajectories(
            self.config,
            self.config.of,
            network,
            self.rng.for_rows(rows),
            {**encode(backbone, prompts), **image},
            {**unconditional(backbone, len(rows)), **image},  # guidance leads away from no image
            self.guidance_scale,
            backbone.blocks(network),
            backbone.latent_shape,
        )
        return Shard(states, image)

    def _data(self, rows: range) -> Any:
        return self.dataset.sample(self.rng.for_rows(rows).at("data"), "train", True)

    def _made(self) -> Any:
        """Whose trajectories they are; loaded when the first shard is missing."""
        if self._network is None:
            start: Any = "teacher" if self.config.of == "teacher" else "student"
            network = self.backbone.network(start).to(self.where).eval()
            with_precision(network, self.config.precision, self.where, frozen=True)
            self._network = network
        return self._network
