"""FLOPs and shapes of results on the meta device, remembered: torch finds most of them in Python,
slowly, and the blocks of a network repeat them."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

#: By an operation and the forms of its arguments: its FLOPs, and whether it has one result, and
#: their forms; None where it runs each time.
_KNOWN: dict[Any, tuple[int, tuple[bool, list[Any]] | None]] = {}
#: So many are kept, some 10 MB; the passes of one network have hundreds.
MOST = 10_000


class RememberedForms(TorchDispatchMode):
    """Operations on tensors without data return new ones of the form that the same operation had
    for arguments of the same forms. Views, and what changes its arguments, run as they are.

    Attributes:
        flops: of all operations so far, as torch's counter finds them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if _is_view(func):  # which costs nothing
            return func(*args, **kwargs)
        key = (func, _form(args), _form(tuple(kwargs.items())))
        known = _KNOWN.get(key)
        if known is None:
            with FlopCounterMode(display=False) as counter:
                out = func(*args, **kwargs)
            flops = counter.get_total_flops()
            self.flops += flops
            forms = None if func._schema.is_mutable else _form_of_results(out)
            if forms is not None or func._schema.is_mutable:
                if len(_KNOWN) >= MOST:
                    _KNOWN.clear()
                _KNOWN[key] = flops, forms
            return out
        flops, forms = known
        self.flops += flops
        if forms is None:
            return func(*args, **kwargs)
        single, results = forms
        made = [torch.empty_strided(size, stride, dtype=dtype, device="meta")
                for size, stride, dtype in results]  # fmt: skip
        return made[0] if single else tuple(made)


@functools.cache
def _is_view(func: Any) -> bool:
    """Whether it returns an argument's data, and changes none."""
    schema = func._schema
    return not schema.is_mutable and any(result.alias_info for result in schema.returns)


def _form(value: Any) -> Any:
    """What a result depends on: all of an argument but its data."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, tuple | list):
        return tuple(map(_form, value))
    return type(value), value  # 1, 1.0 and True are equal, and of other dtypes


def _form_of_results(out: Any) -> tuple[bool, list[Any]] | None:
    """None where a result is no tensor without data."""
    results = [out] if isinstance(out, Tensor) else out
    if not isinstance(results, tuple | list):
        return None
    if not all(isinstance(one, Tensor) and one.is_meta for one in results):
        return None
    return out is results[0], [(one.shape, one.stride(), one.dtype) for one in results]
