"""G4: all frames in one pass under the masks of causal training."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.parity.causal import network, policy
from tests.parity.goldens import Check, Golden, Skipped

#: Frames of a block, of the first block, and of the window.
MASKS: dict[str, tuple[int, int | None, int]] = {
    "blockcausal": (3, None, -1),
    "blockcausal_1frame": (1, None, -1),
    "blockcausal_local6": (3, None, 6),
    "blockcausal_first_frame_independent_7f": (3, 1, -1),
}
CLEAN_COPY = {"teacher_forcing": 3, "teacher_forcing_1frame": 1, "teacher_forcing_aug": 3}


@torch.no_grad()
def check(golden: Golden) -> Iterator[Check | Skipped]:
    x, t, condition = golden["in/noisy"], golden["in/t"] / 1000, {"text": golden["in/context"]}
    for name, (frames, first, local) in MASKS.items():
        if f"out/{name}" in golden:
            model = network(golden, policy({"local_attn_size": local}), frames, first)
            n = golden[f"out/{name}"].shape[2]
            v = model(x[:, :, :n], t[:, :n], condition)
            yield from golden.compare(f"out/{name}", v)
    for name, frames in CLEAN_COPY.items():
        if f"out/{name}" in golden:
            model = network(golden, policy({}), frames)
            clean_t = golden["in/aug_t"] / 1000 if name.endswith("aug") else None
            v = model.forward_masked(x, t, golden["in/clean"], condition, clean_t)
            yield from golden.compare(f"out/{name}", v)
