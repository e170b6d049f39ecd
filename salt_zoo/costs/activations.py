"""How much memory a training pass takes, found with torch's fake tensors: shapes without data."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from salt_zoo.core.networks.lora import trainable
from salt_zoo.core.protocols import Condition

_DEVICE = torch.ops.prim.device.default


def peak_activation_bytes(
    network: nn.Module,
    condition: Condition,
    latent_shape: Sequence[int],
    batch: int,
    bf16: bool,
    gathered: bool = False,
    times: int = 1,
) -> float:
    """Bytes above weights and gradients at the fullest moment of a forward and a backward pass.

    Args:
        network: on the meta device; not to be used afterwards.
        condition: of one row, for its shapes.
        latent_shape: C, F, H, W of one video.
        batch: videos in the pass.
        bf16: under autocast to bfloat16 as `salt_zoo.core.networks.precision` has it, without its
            cache; the copies of weights that the backward pass needs are counted, too.
        gathered: the weights are a sharded network's, gathered in the precision of the pass, so
            that there are no copies of them.
        times: dimensions of the times: 1 is one a video, 2 one a frame.
    """
    if bf16 and gathered:
        network = network.to(torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about fused kernels; nothing is computed
        # on the CPU: its attention keeps no matrix of all pairs of tokens, as CUDA's does not
        network = network.to_empty(device="cpu")
        for _, parameter in trainable(network):
            parameter.requires_grad_(True)
        x = torch.empty(batch, *latent_shape)
        t = torch.empty((batch, latent_shape[1])[:times])
        text = {k: torch.empty(batch, *v.shape[1:], dtype=v.dtype) for k, v in condition.items()}
        for _, parameter in trainable(network):  # gradients are a part of their own
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        peak = _Peak(network.parameters())
        with peak:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
                v = network(x, t, text)
            v.float().square().mean().backward()
    return float(peak.most)


class _Peak(TorchDispatchMode):
    """The most bytes that the results of operations held at once, without the parameters."""

    def __init__(self, parameters: Any) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {p.untyped_storage()._cdata: 0 for p in parameters}
        self._now = 0
        self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].device  # asked for more often than all else, and slowly by the mode
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._hold(tensor.untyped_storage())
        self.most = max(self.most, self._now)
        return out

    def _hold(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._now += storage.nbytes()
            weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self._now -= self._sizes.pop(key)
