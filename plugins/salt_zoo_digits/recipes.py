"""How the shipped weights are made: `salt-zoo pretrain digits-teacher|-causal|-judge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from salt_zoo.config.run import resolve
from salt_zoo.core.base.config import StrictModel
from salt_zoo.io.printing import show
from salt_zoo.io.yaml import read_yaml
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import merge
from salt_zoo.training.launch import train

HERE = Path(__file__).parent


class FlowConfig(StrictModel):
    """Options of the recipes `digits-teacher` and `digits-causal`."""

    #: Keys of a run to change, as in `--set run.training.updates=100`.
    run: dict[str, Any] = {}


class FlowRecipe:
    """A run of flow matching whose result is kept as `NAME`, its log beside it."""

    Config = FlowConfig
    name: ClassVar[str]

    def __init__(self, config: FlowConfig, zoo: Zoo) -> None:
        self.zoo = zoo
        self.file = HERE / f"{self.name}.yaml"
        self.content = merge(read_yaml(self.file), config.run)

    def run(self, folder: Path, device: str) -> int:
        """Train in `folder/run` and write the transformer to `folder/NAME`."""
        from salt_zoo.cli.progress import training_progress
        from salt_zoo.io.files.storage import atomic_folder, file_digest, write_json
        from salt_zoo_wan.checkpoint.export import save_transformer

        resolved = resolve(self.content, self.zoo, str(self.file))
        with training_progress(f"digits-{self.name}") as progress:
            trainer = train(resolved, folder / "run", self.zoo, device, progress)
        with atomic_folder(folder / self.name) as draft:
            save_transformer(trainer.networks.eval_network.transformer, draft)
            files = sorted(draft.glob("*.safetensors"))
            log = {
                "run": resolved.plain(),
                "cost": trainer.cost(),
                "files": {path.name: file_digest(path) for path in files},
                "history": trainer.history,
            }
            write_json(draft / "training.json", log)
        show(json.dumps(log["files"]))
        return 0


class TeacherRecipe(FlowRecipe):
    """The bidirectional teacher, from random weights, as `teacher.yaml` says."""

    name = "teacher"


class CausalRecipe(FlowRecipe):
    """The causal student's first weights, from the teacher's by teacher forcing, as `causal.yaml`
    says."""

    name = "causal"


class JudgeConfig(StrictModel):
    """Options of the recipe `digits-judge`."""

    #: Updates of the judge.
    steps: Annotated[int, Field(ge=1)] = 1500
    batch_size: Annotated[int, Field(ge=2)] = 128


class JudgeRecipe:
    """Cross-entropy on single frames of the train split; and what metrics compare with."""

    Config = JudgeConfig

    def __init__(self, config: JudgeConfig, zoo: Zoo) -> None:
        self.config = config

    def run(self, folder: Path, device: str) -> int:
        """Write the judge to `folder/judge`; it is small enough for any CPU, whatever `device`."""
        import safetensors.torch

        from salt_zoo.cli.progress import training_progress
        from salt_zoo.io.files.storage import atomic_folder, file_digest, write_json
        from salt_zoo_digits.judge import frame_accuracy, train_judge
        from salt_zoo_digits.reference import FILE, Reference, real_videos

        steps, batch_size = self.config.steps, self.config.batch_size
        with training_progress("digits-judge", "steps") as progress:
            judge = train_judge(steps, batch_size, progress)
        found = {split: frame_accuracy(judge, split) for split in ("train", "validation", "test")}
        with atomic_folder(folder / "judge") as draft:
            safetensors.torch.save_file(judge.state_dict(), draft / "judge.safetensors")
            Reference.of(*real_videos(), judge).save(draft / FILE)
            log = {
                "steps": steps,
                "batch_size": batch_size,
                "frame_accuracy": found,
                "files": {
                    path.name: file_digest(path) for path in sorted(draft.glob("*.safetensors"))
                },
            }
            write_json(draft / "training.json", log)
        show(json.dumps(found))
        return 0
