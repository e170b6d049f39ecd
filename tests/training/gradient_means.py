"""Run in two processes: means of gradients that some processes, or all of them, lack."""

from __future__ import annotations

import sys

import pytest
import torch
from accelerate import Accelerator

from salt_zoo.training import gradients


def main() -> None:
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    calls = []
    reduce = accelerator.reduce

    def count(flat: torch.Tensor, reduction: str) -> object:
        calls.append(len(flat))
        return reduce(flat, reduction)

    shapes = [(2,), (1, 3), (2, 4), (1,)]
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    weights[0].grad = torch.full((2,), float(rank))
    if rank:
        weights[1].grad = torch.full((1, 3), 4.0)
    weights[2].grad = torch.arange(8.0).view(2, 4) * (rank + 1)
    with pytest.MonkeyPatch.context() as patch:
        # the first two share a transfer, the third has its own
        patch.setattr(gradients, "BUCKET", 5)
        patch.setattr(accelerator, "reduce", count)
        gradients.average_gradients(weights, accelerator)
    found = [None if p.grad is None else p.grad.tolist() for p in weights]
    accelerator.wait_for_everyone()
    sys.stdout.write(f"{rank}: {found} {calls}\n")  # whole: the other process writes, too
    sys.stdout.flush()


if __name__ == "__main__":
    main()
