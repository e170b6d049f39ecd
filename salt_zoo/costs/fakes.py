"""Results of operations on fake tensors, remembered by the forms of their arguments: torch finds
each of them in Python, slowly, and the blocks of a network repeat them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

#: Of a result: size, stride, dtype, offset in its storage, device, and the place of the argument
#: that it is a view of, if it is one.
_Form = tuple[torch.Size, tuple[int, ...], torch.dtype, int, torch.device, tuple[int, ...] | None]

#: By an operation and the forms of its arguments: what holds its results (`tuple`, `list`, or None
#: where there is one), and their forms.
_KNOWN: dict[Any, tuple[Any, list[_Form]]] = {}
#: So many are kept, some 10 MB; the passes of one network have hundreds.
MOST = 10_000
#: Nothing of its first argument, which may be any tensor, is in its result.
_EMPTY_LIKE = torch.ops.aten.empty_like.default


class RememberedFakes(TorchDispatchMode):
    """Within `fakes`, an operation returns what it returned for arguments of the same forms: new
    tensors, or views of the same argument. What changes its arguments, is given tensors that are
    not fake or returns anything else runs as it is.
    """

    def __init__(self, fakes: FakeTensorMode) -> None:
        super().__init__()
        self._fakes = fakes
        self._attributes: dict[torch.device, dict[str, Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        key = None if func._schema.is_mutable else _key(func, args, kwargs)
        if key is None:
            return func(*args, **kwargs)
        known = _KNOWN.get(key)
        if known is None:
            out = func(*args, **kwargs)
            if (known := _learned(args, kwargs, out)) is not None:
                if len(_KNOWN) >= MOST:
                    _KNOWN.clear()
                _KNOWN[key] = known
            return out
        holder, forms = known
        with torch._C._DisableTorchDispatch():  # below all modes, which know no such tensors
            made = [self._made(form, args) for form in forms]
        return made[0] if holder is None else holder(made)

    def _made(self, form: _Form, args: tuple[Any, ...]) -> Tensor:
        size, stride, dtype, offset, device, place = form
        if place is None:
            data = torch.empty_strided(size, stride, dtype=dtype, device="meta")
        else:
            storage = _at(args, place).untyped_storage()
            data = torch.empty(0, dtype=dtype, device="meta").set_(storage, offset, size, stride)
        if device not in self._attributes:  # the same for all
            self._attributes[device] = dict(vars(FakeTensor(self._fakes, data, device)))
        made = Tensor._make_subclass(
            FakeTensor, data, False, dispatch_device=True, device_for_backend_keys=device
        )
        vars(made).update(self._attributes[device])
        return made


class _NotFake(Exception):
    pass


def _key(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """All that the forms of its results depend on; None where that is not known."""
    first = None
    if func is _EMPTY_LIKE:  # of the weights of a network on the meta device
        first, args = (args[0].shape, args[0].stride(), args[0].dtype, args[0].device), args[1:]
    try:
        return func, first, _form(args), _form(tuple(kwargs.items()))
    except _NotFake:
        return None


def _form(value: Any) -> Any:
    if isinstance(value, Tensor):
        # one with a constant has its numbers, too
        if not isinstance(value, FakeTensor) or value.constant is not None:
            raise _NotFake
        return value.shape, value.stride(), value.dtype, value.storage_offset(), value.device
    if isinstance(value, tuple | list):
        return tuple(map(_form, value))
    return type(value), value  # 1, 1.0 and True are equal, and of other dtypes


def _learned(args: tuple[Any, ...], kwargs: Any, out: Any) -> tuple[Any, list[_Form]] | None:
    """None where the results are not all views of an argument or new, as large as their strides
    say."""
    results = [out] if isinstance(out, Tensor) else out
    if type(results) not in (list, tuple):
        return None
    taken = {_storage(one) for one in tree_iter((args, kwargs)) if isinstance(one, Tensor)}
    places: dict[int, tuple[int, ...]] = {}
    for place, one in _arguments(args):
        if isinstance(one, FakeTensor):
            places.setdefault(_storage(one), place)
    forms: list[_Form] = []
    for one in results:
        if not isinstance(one, FakeTensor) or one.constant is not None:
            return None
        storage, offset = _storage(one), int(one.storage_offset())
        whose = places.get(storage)
        if whose is None and (storage in taken or one.untyped_storage().nbytes() != _extent(one)):
            return None
        taken.add(storage)  # another result of it would be a view
        forms.append((one.shape, one.stride(), one.dtype, offset, one.device, whose))
    return (type(out) if results is out else None), forms


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _extent(tensor: Tensor) -> int:
    """Bytes from its first number to its last."""
    steps = ((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (1 + sum(steps)) * tensor.element_size() if tensor.numel() else 0


def _arguments(args: tuple[Any, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Each argument, and each part of a list of them, with its place."""
    for i, value in enumerate(args):
        yield (i,), value
        if isinstance(value, list | tuple):
            yield from (((i, j), part) for j, part in enumerate(value))


def _at(args: tuple[Any, ...], place: tuple[int, ...]) -> Any:
    found: Any = args
    for step in place:
        found = found[step]
    return found
