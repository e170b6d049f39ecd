"""The networks of a run: made from a method's roles, each with its optimizers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.config.training import OptimizerConfig, TrainingConfig
from salt_zoo.core.errors import ZooError, did_you_mean
from salt_zoo.core.precision import resolve_precision, with_precision
from salt_zoo.core.protocols import Backbone, Checkpointable, NetworkSpec
from salt_zoo.core.rng import KeyedRNG
from salt_zoo.core.roles import Originals
from salt_zoo.plugin.checked_method import STUDENT_EMA
from salt_zoo.training.optimizers import make_optimizers


class Networks(Mapping[str, Any]):
    """All networks of a run by role, on the backbone's device and in the run's precision.

    Trained networks and averages are kept in float32; frozen ones as `with_precision` holds them.
    """

    def __init__(
        self,
        roles: Mapping[str, NetworkSpec],
        backbone: Backbone,
        config: TrainingConfig,
        seed: int,
    ) -> None:
        self.roles = dict(roles)
        trained = [name for name, role in self.roles.items() if role.learning_rate is not None]
        for name in config.optimizers:
            if name not in trained:
                raise ZooError(
                    f"training.optimizers.{name}: the method trains no network of that name; "
                    f"{did_you_mean(name, trained)}"
                )
        if config.average:
            self.roles[STUDENT_EMA] = NetworkSpec(
                start=self.roles["student"].start,
                ema_of="student",
                decay=config.average.decay,
            )
        device = torch.device(backbone.device)
        self.precision = resolve_precision(config.precision, device.type)
        self._average_start = config.average.start if config.average else 0
        self._networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, list[torch.optim.Optimizer]] = {}
        originals = Originals(backbone, self.roles.values())
        for name, role in self.roles.items():
            if role.ema_of and role.ema_of not in trained:
                raise ZooError(f"role {name!r} averages {role.ema_of!r}, which is not trained")
            with torch.random.fork_rng(devices=[]):  # modules draw their weights from torch's own
                torch.manual_seed(KeyedRNG(seed).generator("initial weights", name).initial_seed())
                if role.ema_of:
                    network = copy.deepcopy(self._networks[role.ema_of])
                else:
                    network = originals.network(role.start)
            network = network.to(backbone.device).requires_grad_(False)
            frozen = role.learning_rate is None and role.ema_of is None
            self._networks[name] = with_precision(network, self.precision, device, frozen=frozen)
            if config.gradient_checkpointing:  # frozen ones are passed with gradient, too
                if isinstance(network, Checkpointable):
                    network.enable_gradient_checkpointing()
                elif role.learning_rate is not None:
                    raise ZooError(
                        "training.gradient_checkpointing: this backbone's networks have none; "
                        "set it to false"
                    )
            if role.learning_rate is not None:
                self.optimizers[name] = make_optimizers(
                    network,
                    config.optimizers.get(name, OptimizerConfig()),
                    role.learning_rate,
                )

    def __getitem__(self, role: str) -> nn.Module:
        try:
            return self._networks[role]
        except KeyError:
            raise KeyError(f"the method has no role {role!r}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)

    @property
    def result(self) -> nn.Module:
        """What the run is for: the student's average, or the student where none is kept."""
        return self._networks.get(STUDENT_EMA, self._networks["student"])

    @contextlib.contextmanager
    def training(self, role: str) -> Iterator[list[nn.Parameter]]:
        """Only `role` takes gradients inside the block."""
        network = self._networks[role]
        network.requires_grad_(True)
        try:
            yield list(network.parameters())
        finally:
            network.requires_grad_(False)

    @torch.no_grad()
    def follow(self, role: str, step: int) -> None:
        """Update every average of `role` after its update in `step`."""
        for name, other in self.roles.items():
            if other.ema_of != role:
                continue
            mean: list[Tensor] = list(self._networks[name].parameters())
            weights: list[Tensor] = list(self._networks[role].parameters())
            if name == STUDENT_EMA and step < self._average_start:
                torch._foreach_copy_(mean, weights)
            else:
                torch._foreach_lerp_(mean, weights, 1 - other.decay)

    def saved_roles(self) -> list[str]:
        """The roles whose weights a checkpoint must hold; frozen ones come from the backbone."""
        return [n for n, r in self.roles.items() if r.learning_rate is not None or r.ema_of]
