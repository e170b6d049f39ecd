"""What `torchrun --standalone --nproc_per_node 2` does, but that its agent forks its own process
where torchrun starts interpreters: these would import all anew."""

from __future__ import annotations

import sys
import uuid

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tests.forked import run_words


def process(*words: str) -> None:
    sys.exit(run_words([*words]))


if __name__ == "__main__":
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, process)(*sys.argv[1:])
