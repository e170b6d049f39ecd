"""Trains in one of several processes and writes what bytes each of its networks keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def memory_run(method: str, execution: dict[str, Any], size: str = "small") -> dict[str, Any]:
    """Where passes are of micro-batches there are two in an update: the second beside gradients."""
    options = {"steps": 2, "fake_score": {"updates": 1}} if method == "dmd" else {}
    batch = 2 * execution.get("micro_batch", 4)
    return {
        "method": {"name": method, **options},
        "backbone": {"name": "wan", "size": f"test-{size}"},
        "dataset": "digits",
        # two updates: the first makes the optimizer states after its passes
        "training": {"updates": 2, "batch_size": batch, "trackers": []},
        "execution": execution,
    }


def held_run(shard: int) -> dict[str, Any]:
    """One update makes all states; of how many videos it is they do not depend."""
    run = memory_run("dmd", {"micro_batch": 1, "shard": shard})
    return run | {"training": run["training"] | {"updates": 1}}


def main(file: str) -> None:
    from salt_zoo.config.run import resolve
    from salt_zoo.plugin.manager import load_zoo
    from salt_zoo.training.launch import train
    from salt_zoo.training.state.sharding import local

    zoo = load_zoo(["tests.sizes.plugin"])
    run = resolve(held_run(2), zoo, "test")
    trainer = train(run, Path(file).parent / "run", zoo, "cpu")
    networks, found = trainer.networks, {}
    for role in networks:
        states = [
            value
            for optimizer in networks.optimizers.get(role, ())
            for kept in optimizer.state.values()
            for value in kept.values()
            if value.ndim
        ]
        found[role] = [
            sum(t.numel() * t.element_size() for t in local(list(tensors)))
            for tensors in (networks[role].parameters(), states)
        ]
    rank = trainer.accelerator.process_index
    Path(f"{file}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
