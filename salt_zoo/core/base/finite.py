"""Weights that are not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from salt_zoo.core.base.errors import ZooError

#: Dtypes that `torch.aminmax` supports.
_ORDERED = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def count_not_finite(value: Tensor) -> int:
    """How many numbers of a floating-point tensor are NaN or infinite."""
    if not value.numel():
        return 0
    ends = value if value.dtype in _ORDERED else value.float()
    if all(end.isfinite() for end in torch.aminmax(ends)):
        return 0
    return int((~value.float().isfinite()).sum())


def weights_not_finite(named: str, key: str, bad: int, total: int) -> ZooError:
    """The error for a tensor `key` of `named` with `bad` of `total` such numbers."""
    return ZooError(
        f"{named}: {key!r} has {bad} of {total} numbers that are not finite (NaN or infinite), so "
        "every video would be black; the training went wrong before they were saved, or the "
        "conversion overflowed: give an earlier checkpoint"
    )
