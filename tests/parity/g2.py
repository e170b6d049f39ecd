"""G2: block after block over a full KV cache, and what the cache then holds."""

from __future__ import annotations

from collections.abc import Iterator

from tests.parity.causal import memory_checks, network, policy, three_passes
from tests.parity.goldens import Check, Golden, Skipped


def check(golden: Golden) -> Iterator[Check | Skipped]:
    model = network(golden, policy(golden.facts), golden.facts["frames_per_chunk"])
    found, memory = three_passes(golden, model)
    for name, v in found.items():
        yield from golden.compare(f"out/{name}", v)
    yield from memory_checks(golden, memory)
    for layer, ((keys, values),) in sorted(memory.cross.items()):
        yield from golden.compare(f"out/xattn_k.{layer}", keys)
        yield from golden.compare(f"out/xattn_v.{layer}", values)
