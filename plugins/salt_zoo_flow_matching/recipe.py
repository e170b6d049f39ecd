"""`salt-zoo pretrain teacher`: weights for any backbone, by flow matching on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from salt_zoo.config.parts import Part
from salt_zoo.config.run import resolve
from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.printing import show
from salt_zoo.plugin.registration.registry import merge

#: Of a network that begins with random weights; a run changes what it wants.
RUN: dict[str, Any] = {
    "method": {"start": "random", "learning_rate": 1e-3},
    "training": {
        "updates": 1000,
        "batch_size": 32,
        "clip": 1.0,
        "optimizers": {"student": {"betas": [0.9, 0.99], "weight_decay": 0.0}},
        "schedule": {"warmup": 50, "decay_from": 0.5, "final": 0.0},
    },
}


class TeacherRecipeConfig(StrictModel):
    """Options of the recipe `teacher`."""

    #: Whose networks are trained. One that generates in blocks is trained block by block.
    backbone: Part
    #: Its real videos are what is learned.
    dataset: Part
    #: How blocks see the blocks before them: clean, or as noisy as they are themselves. Without
    #: blocks both are plain flow matching.
    method: Literal["teacher-forcing", "diffusion-forcing"] = "teacher-forcing"
    #: Further keys of the run, as in `--set run.training.updates=5000`.
    run: dict[str, Any] = {}


class TeacherRecipe:
    """A run of flow matching from random weights, saved by the backbone itself."""

    Config = TeacherRecipeConfig

    def __init__(self, config: TeacherRecipeConfig, zoo: Any) -> None:
        parts = {"backbone": config.backbone, "dataset": config.dataset}
        for key in parts.keys() & config.run.keys():
            raise ZooError(f"recipe teacher: run.{key}: write {key} itself, without run")
        own = merge(RUN, {"method": {"name": config.method}})
        self.zoo, self.content = zoo, merge(merge(own, config.run), parts)

    def run(self, folder: Path, device: str) -> int:
        """Train in `folder/run`, or go on there, and write the weights to `folder/teacher`, from
        where the backbone loads them."""
        from salt_zoo.cli.progress import training_progress
        from salt_zoo.planning.check import check_data, check_training
        from salt_zoo.training.launch import train
        from salt_zoo.training.students import save_student

        where = "recipe teacher: run"
        resolved = resolve(self.content, self.zoo, where)
        check_training(resolved, self.zoo, where)
        check_data(resolved, self.zoo, where)
        with training_progress("teacher") as progress:
            trainer = train(resolved, folder / "run", self.zoo, device, progress)
        weights = save_student(trainer, resolved, folder / "teacher")
        if trainer.accelerator.is_main_process:
            show(weights)
        return 0
