"""Networks without data, on the meta device: shapes, sizes and FLOPs before anything is loaded."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.core.methods.method import NetworkSpec
from salt_zoo.core.methods.roles import source
from salt_zoo.core.networks.backbone import Backbone, Start
from salt_zoo.core.networks.condition import example
from salt_zoo.core.networks.copies import copied
from salt_zoo.core.networks.lora import add_lora
from salt_zoo.core.networks.network import Checkpointable, FeatureExtractor

_KNOWN: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


@contextmanager
def on_meta(backbone: Backbone) -> Iterator[None]:
    """The backbone makes tensors without data inside the block."""
    before = backbone.device
    backbone.to("meta")
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:  # an operation that needs data
        raise ZooError(
            f"the backbone {type(backbone).__name__} cannot be planned: its networks and "
            f"conditions must also work on the meta device ({reason(error)[:160]})"
        ) from error
    finally:
        backbone.to(before)


@contextmanager
def made_on(backbone: Backbone, device: torch.device | str) -> Iterator[None]:
    """The backbone makes its networks on `device` inside the block."""
    before = backbone.device
    backbone.to(device)
    try:
        yield
    finally:
        backbone.to(before)


def meta_network(backbone: Backbone) -> Any:
    """A velocity network of a backbone without data; inside `on_meta`."""
    with torch.device("meta"):
        network: Any = backbone.network("random")
    return network.requires_grad_(False)


def kept_network(backbone: Backbone, checkpointing: bool = False) -> Any:
    """A `meta_network`, made once: it takes a second, and no memory."""
    known = _KNOWN.setdefault(backbone, {})
    key = ("network", checkpointing)
    if key not in known:
        network = copied_network(backbone) if checkpointing else meta_network(backbone)
        if checkpointing and isinstance(network, Checkpointable):
            network.enable_gradient_checkpointing()
        known[key] = network
    return known[key]


def copied_network(backbone: Backbone) -> Any:
    """A `meta_network` to be changed; a copy takes a fifth of what making one does."""
    return copied(kept_network(backbone))


def network_of_role(backbone: Backbone, role: NetworkSpec) -> Any:
    """The network of a role without data.

    Raises:
        ZooError: it cannot be made on the meta device.
    """
    if role.factory is None:
        assert role.start is not None
        with on_meta(whose := source(backbone, role.start)):
            network = copied_network(whose)
        if role.lora is not None:
            add_lora(network, role.lora, "training.lora")
            network.requires_grad_(False)
        return network
    with on_meta(backbone):
        try:
            with torch.device("meta"):
                module: nn.Module = role.factory(backbone).to("meta")
        except (NotImplementedError, RuntimeError) as error:
            raise ZooError(
                "a factory of a network must also work on the meta device, without data "
                f"({reason(error)[:160]})"
            ) from error
    return module.requires_grad_(False)


def feature_shape(backbone: Backbone, start: Start, depth: float) -> tuple[int, int]:
    """Tokens of a whole video and their width, `[N, D]`: what `features(..., depth)` of a network
    that starts as `start` returns for each video (`FeatureExtractor`).

    Raises:
        ZooError: these networks have no features.
    """
    whose = source(backbone, start)
    known = _KNOWN.setdefault(whose, {})
    key = ("features", depth)
    if key not in known:
        with on_meta(whose):
            network = kept_network(whose)
            if not isinstance(network, FeatureExtractor):
                raise ZooError(
                    f"networks of the backbone {type(whose).__name__} have no 'features' to read "
                    "(salt_zoo.core.protocols.FeatureExtractor)"
                )
            x = torch.empty(1, *whose.latent_shape, device="meta")
            t = torch.empty(1, device="meta")
            with torch.no_grad():
                tokens = network.features(x, t, example(whose), depth)
        known[key] = (int(tokens.shape[1]), int(tokens.shape[2]))
    shape: tuple[int, int] = known[key]
    return shape
