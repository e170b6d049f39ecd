"""The precision in which networks compute: one policy wherever a network runs.

The policy belongs to a network's pass, not to the code round it: losses, solvers and metrics are
in float32, and a method of a third party sees no autocast that it did not ask for.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map

#: What a user may ask for; `auto` is `bf16` on CUDA and `fp32` elsewhere.
Precision = Literal["auto", "fp32", "tf32", "bf16"]
#: What `auto` becomes on a device.
ResolvedPrecision = Literal["fp32", "tf32", "bf16"]

# norms have float32 weights on purpose; once a process torch says that this is slower
warnings.filterwarnings("ignore", "Mismatch dtype between input and weight", UserWarning)

_MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def resolve_precision(precision: Precision, device_type: str) -> ResolvedPrecision:
    """The precision that `precision` means on a device of the type `device_type`."""
    if precision == "auto":
        return "bf16" if device_type == "cuda" else "fp32"
    return precision


def with_precision(
    network: Any, precision: Precision, device: torch.device | str, *, frozen: bool = False
) -> Any:
    """Make every pass of `network`, which may be any module, compute in `precision`; returns the
    same object.

    All that evaluates the network through itself is in the policy (`features`, `forward_masked`,
    `update_cache`, `Guided`), on whatever device it is by then, and so are copies of it. What a
    pass returns is at least float32. The network's class becomes a subclass of its own, as
    with FSDP2, so that `isinstance`, names of tensors and saved files stay. A second call replaces
    the policy.

    - `fp32`: float32 throughout; on CUDA without TF32, which cuDNN's convolutions use otherwise.
    - `tf32`: float32 whose matrix products are in TF32, on CUDA; elsewhere as `fp32`.
    - `bf16`: autocast to bfloat16; weights stay as they are.

    Args:
        precision: `auto` is resolved for `device`.
        frozen: nothing trains the network: its weights take no gradients any more and, under
            `bf16`, those that autocast would cast at each pass are held in bfloat16. That changes
            no result by a bit. Only for modules that say which of their parts must stay float32
            (diffusers' `_keep_in_fp32_modules`); a module that does not say so stays as it is.
    """
    resolved = resolve_precision(precision, torch.device(device).type)
    kind = type(network)
    plain = kind.plain if issubclass(kind, _InPrecision) else kind
    network.__class__ = _class_in(plain, resolved)
    if frozen:
        network.requires_grad_(False)
        if resolved == "bf16":
            _hold_in_bfloat16(network)
    return network


def precision_of(network: Any) -> ResolvedPrecision | None:
    """The policy of a network; None where `with_precision` has not been called."""
    return network.precision if isinstance(network, _InPrecision) else None


def compute_dtype(network: nn.Module, device_type: str) -> torch.dtype:
    """In what a pass of `network` computes keys and values: what a cache of them has to hold.

    That of its policy; without one that of the autocast around the caller, else of its weights.
    """
    weights = next(network.parameters()).dtype
    if device_type == "meta":  # knows no autocast
        return torch.float32 if isinstance(network, _InPrecision) else weights
    if isinstance(network, _InPrecision):
        return torch.bfloat16 if network.precision == "bf16" else weights
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return weights


@contextlib.contextmanager
def backward_in(precision: ResolvedPrecision, device_type: str) -> Iterator[None]:
    """Where `backward` is called on what passes in `precision` have recorded.

    Autograd computes in the dtypes of the recorded pass, but TF32 is a switch of the process.
    """
    if device_type == "cuda":
        with _tf32(precision == "tf32"):
            yield
    else:
        yield


class _InPrecision:
    """Mixed into a network's class in front of it."""

    plain: type
    precision: ResolvedPrecision

    def forward(self, *arguments: Any, **options: Any) -> Any:
        tensors = (leaf for leaf in tree_iter((arguments, options)) if isinstance(leaf, Tensor))
        first = arguments[0] if arguments else None
        given = first if isinstance(first, Tensor) else next(tensors, None)  # nearly always it is
        device = _device_type(self) if given is None else given.device.type
        network: Any = super()
        if device == "meta":
            # shapes are all that counts, and without autocast mixed weights would not fit together
            self.float()  # type: ignore[attr-defined]
            return network.forward(*arguments, **options)
        with contextlib.ExitStack() as stack:
            # Without autocast's cache: a cast that it keeps of a pass under no_grad has no history
            # and would cut the next, recorded pass off from the weights (pytorch#112583). A pass
            # uses each weight once, so that there is nothing to gain.
            stack.enter_context(
                torch.autocast(
                    device, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
                )
            )
            if device == "cuda":
                stack.enter_context(_tf32(self.precision == "tf32"))
            found = network.forward(*arguments, **options)
            if isinstance(found, Tensor):
                return _at_least_float32(found)
            return tree_map(_at_least_float32, found)


def _device_type(network: Any) -> str:
    return str(next(network.parameters()).device.type)


def _at_least_float32(found: Any) -> Any:
    if not isinstance(found, Tensor) or not found.is_floating_point():
        return found
    if found.dtype in (torch.float32, torch.float64):
        return found
    return found.to(torch.promote_types(found.dtype, torch.float32))


@functools.cache
def _class_in(plain: type, precision: ResolvedPrecision) -> type:
    content = {"plain": plain, "precision": precision, "__module__": plain.__module__}
    return type(plain.__name__, (_InPrecision, plain), content)


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """TF32 on CUDA is on or off inside the block."""
    cudnn: Any = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]


def _hold_in_bfloat16(network: nn.Module) -> None:
    """Of modules that declare what must stay float32, the layers that autocast would cast."""
    for module in network.modules():
        if not hasattr(module, "_keep_in_fp32_modules"):
            continue
        named: Any = module._keep_in_fp32_modules
        islands = set(named or ())
        for name, layer in module.named_modules():
            if isinstance(layer, _MATRIX_LAYERS) and not islands & set(name.split(".")):
                layer.to(torch.bfloat16)
