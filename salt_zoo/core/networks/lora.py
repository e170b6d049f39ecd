"""LoRA (arXiv 2106.09685): low-rank adapters beside the frozen linear layers of a network.

Every network that is adapted has modules of its own, which share the frozen weights with the others
(`copy_sharing`). Which adapters a pass uses is therefore a matter of the network that is called,
and stays so when gradient checkpointing recomputes the pass in the backward pass. Switching
adapters in one network, as peft does, would recompute with those that were active last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear

from salt_zoo.core.base.config import StrictModel
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.copies import copied


class LoraConfig(StrictModel):
    """A trained role as a LoRA: its weights are frozen, and low-rank adapters are trained."""

    #: Rank of the adapters; a layer with fewer inputs or outputs is refused.
    rank: Annotated[int, Field(ge=1)] = 64
    #: The adapters' product is scaled by `alpha / rank`; null is the rank, a scale of 1.
    alpha: Annotated[float, Field(gt=0)] | None = None
    #: Ends of the names of the linear layers that get adapters, such as `to_q` or `ffn.net.2`; null
    #: is every linear layer in the transformer blocks.
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @property
    def scale(self) -> float:
        """The factor on the product of the adapters."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class LoraLinear(nn.Linear):
    """A linear layer with an adapter: `x W^T + b + scale * (x A^T) B^T` (arXiv 2106.09685,
    eq. 3, as third parties number it).

    Made by `add_lora` of a layer that exists; the names of its own tensors stay.

    Attributes:
        lora_A: `[rank, in_features]`.
        lora_B: `[out_features, rank]`, zeros at first.
    """

    lora_A: nn.Parameter
    lora_B: nn.Parameter
    scale: float

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.scale * linear(linear(input, self.lora_A), self.lora_B)

    @torch.no_grad()
    def delta(self) -> Tensor:
        """What the adapter adds to the weight, `[out_features, in_features]` in float32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())


def add_lora(
    network: nn.Module,
    config: LoraConfig,
    where: str,
    device: torch.device | str | None = None,
) -> None:
    """Give linear layers of `network` adapters, in place and in float32.

    `lora_A` is drawn from torch's global generator, uniform as a linear layer's own weights;
    `lora_B` is zeros, so that the network computes what it did. Only adapters take gradients.

    Args:
        where: the key of `config`, for errors.
        device: of the adapters; by default that of each layer.

    Raises:
        ZooError: a target names no linear layer, or the rank is larger than a layer.
    """
    network.requires_grad_(False)
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if type(layer) is nn.Linear and _is_target(name, config.targets)
    }
    for target in config.targets or ():
        if not any(_is_target(name, [target]) for name in layers):
            known = sorted(
                {
                    name.rpartition("blocks.")[2].partition(".")[2]
                    for name, layer in network.named_modules()
                    if type(layer) in (nn.Linear, LoraLinear) and "blocks." in name
                }
            )
            raise ZooError(
                f"{where}.targets: no linear layer's name ends in {target!r}; the blocks have "
                f"{', '.join(known) or 'none'}"
            )
    if not layers:
        raise ZooError(
            f"{where}.targets: the network has no transformer blocks ('blocks.') with linear "
            "layers; name the layers that are to have adapters"
        )
    for name, layer in layers.items():
        smallest = min(layer.in_features, layer.out_features)
        if config.rank > smallest:
            raise ZooError(
                f"{where}.rank: {config.rank} is more than the layer {name!r} allows "
                f"({layer.in_features} to {layer.out_features}); at most {smallest}"
            )
        _adapt(layer, config, torch.device(device or layer.weight.device))


def _is_target(name: str, targets: Sequence[str] | None) -> bool:
    if targets is None:
        return "blocks." in name
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _adapt(layer: Any, config: LoraConfig, device: torch.device) -> None:
    # drawn on the CPU, where the same numbers come whatever the device
    drawn_on = "meta" if device.type == "meta" else "cpu"
    drawn = torch.empty(config.rank, layer.in_features, device=drawn_on)
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5))
    layer.__class__ = LoraLinear
    layer.scale = config.scale
    layer.lora_A = nn.Parameter(drawn.to(device))
    layer.lora_B = nn.Parameter(torch.zeros(layer.out_features, config.rank, device=device))


def lora_layers(network: nn.Module) -> dict[str, LoraLinear]:
    """The layers with adapters by name; empty for a network that has none."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, LoraLinear)}


def trainable(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """What training changes, by name: the adapters where there are some, else all parameters."""
    layers = lora_layers(network)
    if not layers:
        yield from network.named_parameters()
    for name, layer in layers.items():
        yield f"{name}.lora_A", layer.lora_A
        yield f"{name}.lora_B", layer.lora_B


def trainable_state(network: nn.Module) -> dict[str, Any]:
    """The part of the state dict that training changes: the adapters where there are some."""
    state: dict[str, Any] = network.state_dict()
    if not (layers := lora_layers(network)):
        return state
    return {f"{name}.{part}": state[f"{name}.{part}"] for name in layers for part in ADAPTER}


#: The tensors of an adapter.
ADAPTER = ("lora_A", "lora_B")


def copy_sharing(network: nn.Module) -> Any:
    """A copy of `network` that has its own modules and adapters and the very same other weights."""
    own = {id(p) for layer in lora_layers(network).values() for p in (layer.lora_A, layer.lora_B)}
    shared: dict[int, Any] = {id(p): p for p in network.parameters() if id(p) not in own}
    return copied(network, shared)


@torch.no_grad()
def merged(network: nn.Module) -> Any:
    """A copy whose adapters are added to the weights, all in float32: a network as if it had never
    had any. A network without adapters is returned as it is."""
    if not lora_layers(network):
        return network
    whole = copied(network).float()
    layers: list[Any] = [*lora_layers(whole).values()]
    for layer in layers:
        layer.weight += layer.delta()
        del layer.lora_A, layer.lora_B, layer.scale
        layer.__class__ = nn.Linear
    return whole
