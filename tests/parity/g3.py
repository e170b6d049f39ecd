"""G3: a window with and without a sink, as a cache that evicts and as a mask over all frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tests.parity.causal import memory_checks, network, noisy_passes, policy, three_passes
from tests.parity.goldens import Check, Golden, Skipped


def check(golden: Golden) -> Iterator[Check | Skipped]:
    frames = golden.facts["frames_per_chunk"]
    total = frames * golden.facts["num_chunks"]
    for name, facts in golden.facts["variants"].items():
        model = network(golden, policy(facts), frames)
        # a variant whose outputs are another's, bit for bit, is stored once
        stored = facts["outputs_bitwise_identical_to"] or name
        if facts["cache_frames"] == total:  # only the window limits what is seen, as in training
            found = _masked(golden, model)
        else:
            found, memory = three_passes(golden, model)
            for one in memory_checks(golden, memory, f"out/{name}/"):
                yield one
        for quantity, v in found.items():
            for one in golden.compare(f"out/{stored}/{quantity}", v):
                yield Check(f"{golden.name}/{name}", quantity, one.error, one.tolerance)


@torch.no_grad()
def _masked(golden: Golden, model: Any) -> dict[str, Tensor]:
    """The same velocities from one pass over all frames."""
    clean, condition = golden["in/clean"], {"text": golden["in/context"]}
    found = {
        f"v_{name}": model.forward_masked(
            golden[f"in/noisy_{name}"], golden[f"in/t_{name}"] / 1000, clean, condition
        )
        for name in noisy_passes(golden)
    }
    return found | {"v_clean_pass": model(clean, torch.zeros(clean.shape[0]), condition)}
