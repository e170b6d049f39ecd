"""`salt-zoo pretrain trajectories`: make trajectories and keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from salt_zoo.config.parts import Part, configure_part
from salt_zoo.core.condition import unconditional
from salt_zoo.core.errors import TrainingError
from salt_zoo.core.precision import Precision, resolve_precision, with_precision
from salt_zoo.core.protocols import Backbone, Dataset
from salt_zoo.core.rng import KeyedRNG
from salt_zoo.io.printing import show
from salt_zoo.plugin.foreign import lacks_memory
from salt_zoo.plugin.manager import Zoo
from salt_zoo_ode.store import open_folder
from salt_zoo_ode.trajectories import TrajectoryConfig, Whose, draw_trajectories


class TrajectoryRecipeConfig(TrajectoryConfig):
    """Options of the recipe `trajectories`."""

    #: Whose network makes them.
    backbone: Part
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
        """Write what `folder` lacks."""
        from salt_zoo.cli.progress import training_progress
        from salt_zoo.training.devices import find_device

        config = self.config
        where = find_device(device)
        backbone = self.zoo.backbones.create(config.backbone["name"], self._backbone, self.zoo)
        backbone.to(where)
        dataset = self.zoo.datasets.create(config.dataset["name"], self._dataset, self.zoo)
        rng = KeyedRNG(config.seed, ("trajectories",), range(config.count), where)
        header = self._header(backbone, dataset, where.type)
        header["prompts"] = dataset.sample(rng.at("data"), "train", False).prompts
        made = open_folder(folder, header)
        missing = [shard for shard in range(len(made.shards)) if not made.has(shard)]
        if missing:
            start = "teacher" if config.of == "teacher" else "student"
            network = backbone.network(start).to(where).eval()
            with_precision(network, config.precision, where, frozen=True)
        done = config.count - sum(len(made.shards[shard]) for shard in missing)
        with training_progress("trajectories", "trajectories") as progress:
            for shard in missing:
                rows = made.shards[shard]
                prompts = header["prompts"][rows.start : rows.stop]
                try:
                    states = draw_trajectories(
                        config,
                        config.of,
                        network,
                        rng.for_rows(rows),
                        backbone.encode_prompts(prompts),
                        unconditional(backbone, len(rows)),
                        header["guidance_scale"],
                        backbone.blocks(network),
                        backbone.latent_shape,
                    )
                except (MemoryError, RuntimeError) as error:  # a CPU's lack is a RuntimeError
                    if not lacks_memory(error):
                        raise
                    raise TrainingError(
                        f"recipe trajectories: not enough memory for batch_size {len(rows)}; "
                        "lower it, in another folder"
                    ) from None
                made.write(shard, states)
                done += len(rows)
                progress(done, config.count, {})
        show(folder)
        return 0

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
