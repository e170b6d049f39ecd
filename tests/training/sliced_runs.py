"""Makes the networks of runs in one of several processes: the file given lists (content,
folder). Each process writes its part of every role's weights, what it has allocated and what it has
said."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

#: The runs of whose fullest moment a test asks.
PROFILED = ("one", "old")


def make_networks(
    content: dict[str, Any], zoo: Any, world: int, rank: int, profiled: bool = False
) -> tuple[Any, int]:
    """The networks of a run, and, where it is `profiled`, which takes longer than to make them, the
    bytes that were held at the fullest moment."""
    from salt_zoo.config.run import resolve
    from salt_zoo.training.data.origin import make_parts
    from salt_zoo.training.state.layout import make_layout
    from salt_zoo.training.state.networks import Networks

    resolved = resolve(content, zoo, "test")
    config, parts = resolved.config, make_parts(resolved, zoo)
    layout = make_layout(config.execution, config.training.batch_size, world, rank)

    def make() -> Networks:
        return Networks(parts.method.roles(), parts.backbone, config.training, config.seed, layout)

    return most_allocated(make) if profiled else (make(), 0)


def most_allocated(do: Callable[[], Any]) -> tuple[Any, int]:
    """What `do` returns, and the bytes that it held at its fullest moment."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        made = do()
    now = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return made, most


def main(jobs: list[tuple[dict[str, Any], str]]) -> None:
    import pytest
    import torch.distributed as distributed
    from safetensors.torch import save_file

    from salt_zoo.core.base.errors import ZooError
    from salt_zoo.core.methods.roles import make_network
    from salt_zoo.plugin.manager import load_zoo
    from salt_zoo.training.devices import join_processes
    from salt_zoo.training.state import sliced_loading
    from salt_zoo.training.state.sharding import local
    from tests.training.sharded_runs import held

    join_processes("cpu")
    world, rank = distributed.get_world_size(), distributed.get_rank()
    zoo = load_zoo(["tests.sizes.plugin", "tests.training.one_network"])
    whole: list[Any] = []  # networks that this process has made

    def make(*arguments: Any) -> Any:
        whole.append(arguments)
        return make_network(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_loading, "make_network", make)
        for content, place in jobs:
            folder = Path(place)
            folder.mkdir(parents=True, exist_ok=True)
            whole.clear()
            try:
                with open(folder / f"said-{rank}.txt", "w") as said, redirect_stderr(said):
                    profiled = folder.name in PROFILED
                    networks, most = make_networks(content, zoo, world, rank, profiled)
            except ZooError as error:
                (folder / f"error-{rank}.txt").write_text(str(error))
                continue
            for role, network in networks.items():
                every = {**dict(network.named_parameters()), **dict(network.named_buffers())}
                parts = zip(every, local([*every.values()]), strict=True)
                save_file(
                    {name: part.detach().clone() for name, part in parts},
                    folder / f"{role}-{rank}.safetensors",
                )
            numbers = {"held": held(networks), "most": most, "whole": len(whole)}
            (folder / f"numbers-{rank}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
