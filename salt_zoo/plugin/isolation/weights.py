"""Whether code of a plugin has written to the weights of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def weight_versions(network: nn.Module) -> list[tuple[int, int]]:
    """Changes when a parameter is written to or replaced, by whatever means.

    Weights that were made in inference mode are left out: torch does not count their writes.
    """
    found: list[tuple[int, int]] = []
    modules: list[nn.Module | None] = [network]
    while modules:  # `parameters()` makes names, too: twice the time
        module = modules.pop()
        if module is not None:
            weights = module._parameters.values()
            found += [
                (id(p), p._version) for p in weights if p is not None and not p.is_inference()
            ]
            modules += module._modules.values()
    return found


def cannot_write(error: BaseException | None) -> bool:
    """Whether an error is torch's refusal to write to the weights of a plan's network, each of
    which is one number (`salt_zoo.costs.passes`)."""
    return isinstance(error, RuntimeError) and "refers to a single memory location" in str(error)
