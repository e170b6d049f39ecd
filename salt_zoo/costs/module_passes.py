"""What a pass of a module takes that is no velocity network: measured when it happens.

The FLOPs of a velocity network follow from its backbone; those of a discriminator only from what
it is given. Its first pass of each kind is repeated with tensors of the meta device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.flop_counter import FlopCounterMode

from salt_zoo.core.base.errors import ZooError, reason


@dataclass(frozen=True)
class ModulePass:
    """One pass over one row of the module's first tensor.

    Attributes:
        forward, backward: FLOPs.
        held: bytes that are kept for the backward pass, in float32.
        recorded: whether there is a backward pass.
    """

    forward: float
    backward: float
    held: float
    recorded: bool
    depth: ClassVar[float] = 1.0


class ModuleMeter:
    """Measures the passes of one module; each kind once."""

    def __init__(self, role: str, module: nn.Module) -> None:
        self._role, self._module = role, module
        self._known: dict[Any, ModulePass] = {}

    def measure(self, arguments: Any, options: Mapping[str, Any]) -> tuple[ModulePass, int]:
        """The pass that these arguments make, and the rows that it is over.

        Raises:
            ZooError: the module does not work on the meta device.
        """
        given = (arguments, dict(options))
        tensors = [leaf for leaf in tree_iter(given) if isinstance(leaf, Tensor)]
        rows = len(tensors[0]) if tensors and tensors[0].ndim else 1
        gradient = torch.is_grad_enabled()
        weights = gradient and any(p.requires_grad for p in self._module.parameters())
        key = (weights, gradient, *(_form(leaf) for leaf in tree_iter(given)))
        if key not in self._known:
            try:
                self._known[key] = self._measured(given, weights, max(rows, 1))
            except Exception as error:  # whatever a plugin's module raises without data
                raise ZooError(
                    f"role {self._role!r}: its passes cannot be counted, because its module does "
                    f"not work on the meta device ({reason(error)[:160]}); keep its tensors as "
                    "parameters or buffers, and read no numbers in its forward"
                ) from error
        return self._known[key], rows

    def _measured(self, given: Any, weights: bool, rows: int) -> ModulePass:
        arguments, options = tree_map(_without_data, given)
        held = {
            name: _without_data(tensor).requires_grad_(weights and tensor.requires_grad)
            for name, tensor in (*self._module.named_parameters(), *self._module.named_buffers())
        }
        weight_storages = {tensor.untyped_storage()._cdata for tensor in held.values()}
        kept: dict[int, Any] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weight_storages:
                kept[storage._cdata] = storage
            return tensor

        with FlopCounterMode(display=False) as counter:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                out = torch.func.functional_call(self._module, held, arguments, options)
            forward = counter.get_total_flops()
            recorded = [
                leaf
                for leaf in tree_iter(out)
                if isinstance(leaf, Tensor) and leaf.requires_grad and not leaf.is_complex()
            ]
            if recorded:
                torch.stack([leaf.float().sum() for leaf in recorded]).sum().backward()
            both = counter.get_total_flops()
        size = sum(storage.nbytes() for storage in kept.values()) if recorded else 0
        return ModulePass(forward / rows, (both - forward) / rows, size / rows, bool(recorded))


def _without_data(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    dtype = torch.float32 if leaf.is_floating_point() else leaf.dtype
    made = torch.empty_like(leaf, device="meta", dtype=dtype)
    return made.requires_grad_(leaf.requires_grad) if leaf.is_floating_point() else made


def _form(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype, leaf.requires_grad
    return repr(leaf)
