"""A LoRA of a given rank from a whole student: the truncated SVD of what its training has changed.

By Eckart and Young's theorem no other matrix of that rank is nearer to the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from salt_zoo.core.base.errors import ZooError


@dataclass(frozen=True)
class Extracted:
    """A LoRA and how far it is from what it was extracted from.

    Attributes:
        factors: `A` `[rank, inputs]` and `B` `[outputs, rank]` by layer.
        errors: by layer, the Frobenius norm of what is lost of the difference of student and base,
            relative to that of the difference; 0 is exact.
        error: the same over all tensors, also those that a LoRA leaves as they are (norms, biases,
            embeddings).
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    errors: Mapping[str, float]
    error: float


@torch.no_grad()
def extract_lora(
    student: nn.Module,
    base: nn.Module,
    rank: int,
    progress: Callable[[int, int], None] | None = None,
) -> Extracted:
    """The LoRA of `rank` over the linear layers of the transformer blocks of `base`.

    Args:
        student, base: transformers of one size.
        progress: called after each layer with (done, layers).

    Raises:
        ZooError: they are of different sizes, equal, or a layer is smaller than `rank`.
    """
    before, after = dict(base.named_parameters()), dict(student.named_parameters())
    if {n: p.shape for n, p in before.items()} != {n: p.shape for n, p in after.items()}:
        raise ZooError("the base is of another size than the student; give the student's own base")
    lost = whole = 0.0
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    errors: dict[str, float] = {}
    layers = [
        name
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear) and "blocks." in name
    ]
    for name, weight in before.items():
        layer = name.removesuffix(".weight")
        if layer == name or layer not in layers:
            change = float((after[name].double() - weight.double()).square().sum())
            lost, whole = lost + change, whole + change
    for done, layer in enumerate(layers, 1):
        weight = before[f"{layer}.weight"]
        difference = after[f"{layer}.weight"].double() - weight.double()
        if rank > min(difference.shape):
            raise ZooError(
                f"--rank {rank}: more than the layer {layer!r} has ({min(difference.shape)})"
            )
        u, s, v = torch.linalg.svd(difference.float(), full_matrices=False)
        root = s[:rank].sqrt()
        a, b = root[:, None] * v[:rank], u[:, :rank] * root
        left = float((difference - b.double() @ a.double()).square().sum())
        size = float(difference.square().sum())
        errors[layer] = (left / size) ** 0.5 if size else 0.0
        lost, whole = lost + left, whole + size
        if size:
            factors[layer] = (a.cpu(), b.cpu())
        if progress:
            progress(done, len(layers))
    if not factors:
        raise ZooError("the student has the weights of its base; there is nothing to extract")
    return Extracted(factors, errors, (lost / whole) ** 0.5)
