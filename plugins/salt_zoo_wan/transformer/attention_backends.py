"""diffusers' dispatcher of attention: which library computes it, named at every call.

A backend is a choice of each network and its copies, so that others in the process keep theirs and
that neither the environment (`DIFFUSERS_ATTN_BACKEND`) nor a recomputation by gradient
checkpointing changes it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    attention_backend,
    dispatch_attention_fn,
)
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.utils import logging
from torch import Tensor

from salt_zoo.core.base.errors import ZooError, did_you_mean, shown, text_of
from salt_zoo.core.protocols import AttentionUse
from salt_zoo.io.printing import say_once

#: torch's own.
NATIVE = AttentionBackendName.NATIVE
#: Those that write as a backend is chosen.
_LOGGERS = [
    logging.get_logger(f"diffusers.models.{name}")
    for name in ("modeling_utils", "attention_dispatch")
]
#: Where diffusers looks for the backend of its own pipelines.
VARIABLE = "DIFFUSERS_ATTN_BACKEND"


def find_backend(name: str) -> AttentionBackendName:
    """The backend that diffusers calls `name`.

    Raises:
        ZooError: there is none.
    """
    try:
        return AttentionBackendName(name)
    except ValueError:
        hint = did_you_mean(name, (backend.value for backend in AttentionBackendName))
        raise ZooError(f"unknown backend {shown(name)}; {hint}") from None


def use_backend(transformer: WanTransformer3DModel, backend: AttentionBackendName) -> None:
    """Let the attention processors of `transformer` name `backend`.

    Raises:
        ZooError: it is not installed.
    """
    _tell_of_environment()
    model: Any = transformer
    try:
        # the end of the second takes back what is set of the whole process
        with _silence(), attention_backend(NATIVE):
            model.set_attention_backend(backend.value)
    except (RuntimeError, ImportError, OSError) as error:
        raise _refused(backend, text_of(error)) from None
    if backend is not NATIVE:
        _cast_as_torch_does(model)


@contextmanager
def _silence() -> Iterator[None]:
    """Diffusers does not say of each network that this is an experimental feature. Not by its level
    of verbosity: a level that changes lets every logger of the process forget what it knows, which
    takes longer than choosing a backend."""
    before = [logger.disabled for logger in _LOGGERS]
    for logger in _LOGGERS:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(_LOGGERS, before, strict=True):
            logger.disabled = disabled


def try_backend(backend: AttentionBackendName, heads: int, width: int, use: AttentionUse) -> None:
    """Attend to a few tokens of so many heads of this width, as a network would.

    Raises:
        ZooError: it is not installed, or cannot be used so.
    """
    if backend is NATIVE:
        return
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, tokens, heads, width, generator=generator)
        .to(use.device, use.dtype)
        .requires_grad_(use.backward)
        for tokens in (64, 32, 32)
    )
    how = f"{str(use.dtype).removeprefix('torch.')} on {use.device.type}"
    if use.backward:
        how += ", with gradients"
    try:
        with torch.set_grad_enabled(use.backward), attention_backend(backend):
            out = dispatch_attention_fn(query, key, value, backend=backend)
            if use.backward:
                if not out.requires_grad:
                    raise _refused(backend, "it has no backward pass, which training needs")
                out.sum().backward()
    except ZooError:
        raise
    except Exception as error:  # of libraries of all kinds
        raise _refused(backend, f"for {how}: {text_of(error)}") from None
    gradients = [x.grad for x in (query, key, value)] if use.backward else []
    if not all(x is not None and bool(x.isfinite().all()) for x in (out, *gradients)):
        raise _refused(backend, f"for {how} it gives numbers that are not finite")


def dispatch_attention(
    query: Tensor, key: Tensor, value: Tensor, backend: AttentionBackendName
) -> Tensor:
    """Attention of `[B, N, heads, width]` tensors by `backend`."""
    if backend is not NATIVE:
        query, key, value = (_in_autocast(x) for x in (query, key, value))
    out: Tensor = dispatch_attention_fn(query, key, value, backend=backend)
    return out


def _in_autocast(x: Tensor) -> Tensor:
    """`x` in the type to which autocast, where it is on, casts what torch's attention is given: of
    other libraries it does not know."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def _cast_as_torch_does(transformer: Any) -> None:
    """The norms of queries and keys return float32 under autocast, and diffusers' own processor
    hands that on. Ours casts by itself (`dispatch_attention`), where this does no harm."""
    for block in transformer.blocks:
        for attention in (block.attn1, block.attn2):
            for name, layer in attention.named_children():
                done = _output_in_autocast in layer._forward_hooks.values()
                if name in ("norm_q", "norm_k", "norm_added_k") and not done:
                    layer.register_forward_hook(_output_in_autocast)


def _output_in_autocast(module: Any, args: Any, output: Tensor) -> Tensor:
    return _in_autocast(output)


def _refused(backend: AttentionBackendName, why: str) -> ZooError:
    short = why[:300].rstrip(" .")
    return ZooError(f"{backend.value!r} cannot be used here ({short}); write native")


@functools.cache
def _tell_of_environment() -> None:
    if (name := os.environ.get(VARIABLE)) not in (None, NATIVE.value):
        say_once(
            f"{VARIABLE}={name} is of diffusers' own pipelines and is not used here; set "
            "execution.attention, or --attention of sample, stream and benchmarks.perf"
        )
