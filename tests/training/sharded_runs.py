"""Trains runs in one of several processes: the file given lists (content, folder)."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any


def held(networks: Any) -> int:
    """Bytes of the weights of all networks in this process."""
    from salt_zoo.training.state.sharding import local

    weights = local([weight for role in networks for weight in networks[role].parameters()])
    storages = {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in weights}
    return sum(storages.values())


def main(jobs: list[tuple[dict[str, Any], str]]) -> None:
    import torch
    from safetensors.torch import save_file

    from salt_zoo.config.run import resolve
    from salt_zoo.core.base.errors import ZooError
    from salt_zoo.plugin.manager import load_zoo
    from salt_zoo.training.launch import train

    # torch reads its variable once a process, which has run others before
    eager = os.environ.get("TORCHDYNAMO_DISABLE") == "1"
    zoo = load_zoo([f"tests.{name}.plugin" for name in ("gaussian", "blocks", "sizes", "copies")])
    for content, folder in jobs:
        resolved = resolve(content, zoo, folder)
        try:
            with torch.compiler.set_stance("force_eager") if eager else nullcontext():
                trainer = train(resolved, Path(folder), zoo, "cpu")
            rank = trainer.accelerator.process_index
            (Path(folder) / f"held-{rank}.json").write_text(json.dumps(held(trainer.networks)))
            student = trainer.networks.whole_network()
            if student is not None and trainer.accelerator.is_main_process:
                save_file(student.state_dict(), Path(folder) / "student.safetensors")
        except ZooError as error:
            print(f"{folder}: {error}")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
