"""How the shipped teacher and judge are made: `salt-zoo pretrain digits-teacher|digits-judge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
