"""How the shipped teacher and judge are made: `salt-zoo pretrain digits-teacher|digits-judge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from salt_zoo.config import StrictModel, read_yaml
from salt_zoo.registry import merge
from salt_zoo.run import resolve, train

RUN = Path(__file__).parent / "teacher.yaml"


class TeacherConfig(StrictModel):
    """Options of the recipe `digits-teacher`."""

    #: Keys of a run to change, as in `--set run.training.updates=100`.
    run: dict[str, Any] = {}


class TeacherRecipe:
    """Flow matching from random weights, as `teacher.yaml` says."""

    Config = TeacherConfig

    def __init__(self, config: TeacherConfig, zoo: Any) -> None:
        self.zoo = zoo
        self.content = merge(read_yaml(RUN), config.run)

    def run(self, folder: Path, device: str) -> int:
        """Train in `folder/run` and write the teacher to `folder/teacher`, its log beside it."""
        from salt_zoo.cli.progress import training_progress
        from salt_zoo.storage import atomic_folder, file_digest, write_json

        resolved = resolve(self.content, self.zoo, str(RUN))
        with training_progress("digits-teacher") as progress:
            trainer = train(resolved, folder / "run", self.zoo, device, progress)
        with atomic_folder(folder / "teacher") as draft:
            trainer.networks.result.transformer.save_pretrained(draft)
            files = sorted(draft.glob("*.safetensors"))
            log = {
                "run": resolved.plain(),
                "cost": trainer.cost(),
                "files": {path.name: file_digest(path) for path in files},
                "history": trainer.history,
            }
            write_json(draft / "training.json", log)
        print(json.dumps(log["files"]))
        return 0


class JudgeConfig(StrictModel):
    """Options of the recipe `digits-judge`."""

    steps: Annotated[int, Field(ge=1)] = 1500
    batch_size: Annotated[int, Field(ge=2)] = 128


class JudgeRecipe:
    """Cross-entropy on single frames of the train split."""

    Config = JudgeConfig

    def __init__(self, config: JudgeConfig, zoo: Any) -> None:
        self.config = config

    def run(self, folder: Path, device: str) -> int:
        """Write the judge to `folder/judge`; it is small enough for any CPU, whatever `device`."""
        from salt_zoo_digits.judge import train_judge

        found = train_judge(folder / "judge", self.config.steps, self.config.batch_size)
        print(json.dumps(found))
        return 0
