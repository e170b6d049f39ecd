"""`salt-zoo prepare trajectories`: make trajectories and keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from salt_zoo.config.parts import Part, configure_part
from salt_zoo.core.condition import encode, unconditional
from salt_zoo.core.errors import ZooError
from salt_zoo.core.precision import Precision, resolve_precision, with_precision
from salt_zoo.core.protocols import Backbone, Dataset
from salt_zoo.core.ranks import is_main_process
from salt_zoo.core.rng import KeyedRNG
from salt_zoo.io.dealing import deal
from salt_zoo.io.distributed import on_main
from salt_zoo.io.printing import show
from salt_zoo.plugin.foreign import fitting_batch
from salt_zoo.plugin.manager import Zoo
from salt_zoo.preparation.shards import Progress
from salt_zoo.training.prepared_text import PreparedText
from salt_zoo_ode.store import open_folder
from salt_zoo_ode.trajectories import TrajectoryConfig, Whose, draw_trajectories


class TrajectoryRecipeConfig(TrajectoryConfig):
    """Options of the recipe `trajectories`."""

    #: Whose network makes them.
    backbone: Part
    #: A folder of `salt-zoo prepare text`: its prompts need no text encoder.
    text: Path | None = None
    #: Whose training prompts the trajectories are for.
    dataset: Part
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
        if backbone.image_shape is not None:
            raise ZooError(
                "recipe trajectories: the backbone generates from first frames, and stored "
                "trajectories have none; without them ode-regression makes its own as it trains"
            )
        if config.text is not None:
            PreparedText(config.text).bind(backbone)
        dataset = self.zoo.datasets.create(config.dataset["name"], self._dataset, self.zoo)
        rng = KeyedRNG(config.seed, ("trajectories",), range(config.count), where)
        header = self._header(backbone, dataset, where.type)
        header["prompts"] = dataset.sample(rng.at("data"), "train", False).prompts
        made = on_main(lambda: open_folder(folder, header))
        network = None
        for shard in deal(made.missing):
            if network is None:
                start = "teacher" if config.of == "teacher" else "student"
                network = backbone.network(start).to(where).eval()
                with_precision(network, config.precision, where, frozen=True)
            rows = made.shards[shard]
            prompts = header["prompts"][rows.start : rows.stop]
            with fitting_batch("recipe trajectories", len(rows)):
                states = draw_trajectories(
                    config,
                    config.of,
                    network,
                    rng.for_rows(rows),
                    encode(backbone, prompts),
                    unconditional(backbone, len(rows)),
                    header["guidance_scale"],
                    backbone.blocks(network),
                    backbone.latent_shape,
                )
            made.write(shard, states)
            progress(made.done(), config.count, {})

    def _header(self, backbone: Backbone, dataset: Dataset, device: str) -> dict[str, Any]:
        """All that decides what the trajectories are, but the prompts."""
        config = self.config
        scale = config.guidance_scale
        options = {"backbone": self._backbone, "dataset": self._dataset}
        named = {"backbone": config.backbone, "dataset": config.dataset}
        return {
            kind: {"name": part["name"], **options[kind].model_dump(mode="json")}
            for kind, part in named.items()
        } | {
            "fingerprints": {
                "backbone": dict(backbone.fingerprint()),
                "dataset": dict(dataset.fingerprint()),
            },
            "of": config.of,
            "times": config.times,
            "timestep_shift": config.timestep_shift,
            "teacher_steps": config.teacher_steps,
            "guidance_scale": backbone.guidance_scale if scale is None else scale,
            "precision": resolve_precision(config.precision, device),
            "seed": config.seed,
            "count": config.count,
            "batch_size": config.batch_size,
            "shape": [config.steps + 1, *backbone.latent_shape],
        }
