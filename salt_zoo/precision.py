"""The precision in which networks compute: one policy wherever a network runs."""

from __future__ import annotations

from typing import Literal

#: What a user may ask for; `auto` is `bf16` on CUDA and `fp32` elsewhere.
Precision = Literal["auto", "fp32", "tf32", "bf16"]
#: What `auto` becomes on a device.
ResolvedPrecision = Literal["fp32", "tf32", "bf16"]


def resolve_precision(precision: Precision, device_type: str) -> ResolvedPrecision:
    """The precision that `precision` means on a device of the type `device_type`."""
    if precision == "auto":
        return "bf16" if device_type == "cuda" else "fp32"
    return precision
