"""Trains runs in one of the processes of torchrun: the file given lists (content, folder)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(jobs: list[tuple[dict[str, Any], str]]) -> None:
    from safetensors.torch import save_file

    from salt_zoo.config.run import resolve
    from salt_zoo.core.errors import ZooError
    from salt_zoo.plugin.manager import load_zoo
    from salt_zoo.training.launch import train

    zoo = load_zoo(["tests.gaussian.plugin", "tests.blocks.plugin", "tests.sizes.plugin"])
    for content, folder in jobs:
        resolved = resolve(content, zoo, folder)
        try:
            trainer = train(resolved, Path(folder), zoo, "cpu")
            student = trainer.networks.whole_network("student_ema")
            if student is not None and trainer.accelerator.is_main_process:
                save_file(student.state_dict(), Path(folder) / "student.safetensors")
        except ZooError as error:
            print(f"{folder}: {error}")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
