"""The networks of a run: made from a method's roles, each with its optimizers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.config.execution import Offload
from salt_zoo.config.training import OptimizerConfig, TrainingConfig
from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.core.base.ranks import is_main_process
from salt_zoo.core.base.rng import KeyedRNG, seed_torch
from salt_zoo.core.methods.attention import (
    NATIVE,
    attention_use,
    check_attention,
    choose_attention,
)
from salt_zoo.core.methods.meta import made_on
from salt_zoo.core.methods.method import check_followed
from salt_zoo.core.methods.roles import (
    check_offload,
    is_offloaded,
    source,
    with_averages,
    with_lora,
)
from salt_zoo.core.networks.copies import copied
from salt_zoo.core.networks.lora import add_lora, copy_sharing, trainable
from salt_zoo.core.networks.precision import resolve_precision, with_precision
from salt_zoo.core.networks.token_sharing import share_tokens
from salt_zoo.core.protocols import Backbone, Checkpointable, NetworkSpec
from salt_zoo.plugin.isolation.checked_roles import STUDENT_EMA
from salt_zoo.plugin.isolation.whole_protocols import check_protocols
from salt_zoo.training.state.frozen_bases import FrozenBases, share_shards
from salt_zoo.training.state.layout import ALONE, Layout
from salt_zoo.training.state.optimizers import make_optimizers
from salt_zoo.training.state.sharding import (
    local,
    settle_gathered,
    settle_gradient_types,
    shard,
    skeleton,
    whole_weights,
)
from salt_zoo.training.state.sliced_loading import SlicedLoading, can_load_slices


@contextlib.contextmanager
def _drawn(seed: int, role: str) -> Iterator[None]:
    """What modules draw from torch's own generator depends on the seed and the role alone."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(KeyedRNG(seed).generator("initial weights", role).initial_seed())
        yield


class Networks(Mapping[str, Any]):
    """All networks of a run by role, on the backbone's device and in the run's precision.

    Trained networks and averages are kept in float32; frozen ones as `with_precision` holds them.
    Weights that are drawn depend on the seed and the role alone.
    """

    def __init__(
        self,
        roles: Mapping[str, NetworkSpec],
        backbone: Backbone,
        config: TrainingConfig,
        seed: int,
        layout: Layout = ALONE,
        *,
        gradient_checkpointing: bool = False,
        offload: Sequence[Offload] = (),
        attention: str = NATIVE,
    ) -> None:
        trained = [name for name, role in roles.items() if role.learning_rate is not None]
        for name in config.optimizers:
            if name not in trained:
                raise ZooError(
                    f"training.optimizers.{name}: the method trains no network of that name; "
                    f"{did_you_mean(name, trained)}"
                )
        check_followed(roles)
        every = dict(roles)
        if config.ema:
            every[STUDENT_EMA] = NetworkSpec(ema_of="student", decay=config.ema.decay)
        #: By name; averages and copies as what they follow, and after it.
        self.roles = with_averages(with_lora(every, config.lora))
        device = torch.device(backbone.device)
        self.precision = resolve_precision(config.precision, device.type)
        self._ema_start = config.ema.start if config.ema else 0
        self.layout = layout
        self._skeleton: nn.Module | None = None  # of the evaluated network, if that is sharded
        self._networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, list[torch.optim.Optimizer]] = {}
        shards: dict[int, nn.Parameter] = {}  # of weights that several networks have, by their id
        copies: dict[str, nn.Module] = {}  # for those who follow: a sharded network has none
        check_offload(self.roles, offload, backbone)
        # frozen networks, too, may be passed with gradient
        use = attention_use(self.precision, device, backward=True)
        for whose in dict.fromkeys(
            source(backbone, role.start) for role in self.roles.values() if role.start is not None
        ):
            check_attention(whose, attention, "execution.attention", use)
        offloaded = {name for name, role in self.roles.items() if is_offloaded(role, offload)}
        # heads are small and stay whole
        in_units = [
            name
            for name, role in self.roles.items()
            if role.factory is None and (layout.sharded or name in offloaded)
        ]
        mesh = layout.mesh(device.type) if in_units else None
        sequence = layout.sequence_group(device.type)
        drawn = functools.partial(_drawn, seed)
        slices, by_slices = None, set[str]()
        if can_load_slices(backbone, self.roles):
            slices = SlicedLoading(backbone, self.roles, self.precision, drawn, offload)
            for name in in_units:
                its = self.roles[name].follows
                if its is None or its in by_slices:
                    by_slices.add(name)
        rest = {name: role for name, role in self.roles.items() if name not in by_slices}
        bases = FrozenBases(backbone, rest, self.precision, offload)
        originals = bases.originals
        # whole networks may fit no GPU: `shard` moves them there unit by unit
        loading = torch.device("cpu") if set(in_units) - by_slices else device
        for name, role in self.roles.items():
            sliced = slices if name in by_slices else None
            with drawn(name):
                if sliced:
                    network = sliced.empty(name)
                elif role.follows:
                    network = copies.pop(name)
                elif role.factory is not None:
                    network = role.factory(backbone)
                elif bases.is_shared(role):
                    network = bases.network(role)
                    if role.lora is not None:
                        add_lora(network, role.lora, f"training.lora.{name}")
                else:
                    assert role.start is not None
                    with made_on(backbone, loading):
                        network = originals.network(role.start)
                if role.factory is None:
                    check_protocols(network, "network", f"the network of the role {name!r}")
            place = loading if name in in_units else device
            if not sliced:
                network = network.to(place)
            network.requires_grad_(False)
            frozen = role.is_frozen
            if frozen and role.factory is not None:
                network.eval()
            network = with_precision(network, self.precision, device, frozen=frozen)
            if role.factory is None:
                choose_attention(network, attention, "execution.attention", use)
            for other, spec in self.roles.items():
                if spec.follows == name and not sliced:
                    made = copied if role.lora is None else copy_sharing
                    copies[other] = made(network).to("cpu" if other in offloaded else place)
            if gradient_checkpointing:  # frozen ones are passed with gradient, too
                if isinstance(network, Checkpointable):
                    network.enable_gradient_checkpointing()
                elif role.learning_rate is not None and role.factory is None:
                    raise ZooError(
                        "execution.gradient_checkpointing: this backbone's networks have none; "
                        "set it to false"
                    )
            if mesh is not None and name in in_units:
                if name == self.eval_role:
                    self._skeleton = skeleton(network)
                given = dict(network.named_parameters())
                # adapters are in float32 and their base is held as a frozen network is
                no_casts = frozen or role.lora is not None or not layout.sharded
                network = shard(
                    network, mesh, self.precision, frozen=no_casts, offload=name in offloaded
                )
                if sliced:
                    sliced.fill(name, network, device, offload=name in offloaded)
                elif bases.is_shared(role):
                    share_shards(network, given, shards)
                if role.learning_rate is not None and role.lora is None:
                    settle_gradient_types(network)
                if not layout.sharded:
                    settle_gathered(network)
            if sequence is not None and role.factory is None:  # a head passes what is whole
                share_tokens(network, sequence, backbone.latent_shape)
            self._networks[name] = network
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
    def eval_role(self) -> str:
        """The role that is evaluated and saved: the student's EMA, or else the student."""
        return STUDENT_EMA if STUDENT_EMA in self.roles else "student"

    @property
    def eval_network(self) -> nn.Module:
        """The network of `eval_role`."""
        return self._networks[self.eval_role]

    @property
    def modules(self) -> list[str]:
        """The roles that are no velocity networks."""
        return [name for name, role in self.roles.items() if role.factory is not None]

    @contextlib.contextmanager
    def training(self, roles: Sequence[str]) -> Iterator[None]:
        """Only `roles` take gradients inside the block."""
        for role in roles:
            for _, parameter in trainable(self._networks[role]):
                parameter.requires_grad_(True)
        try:
            yield
        finally:
            for role in roles:
                self._networks[role].requires_grad_(False)

    @torch.no_grad()
    def update_ema(self, role: str, step: int) -> None:
        """Update every EMA of `role` after its update in `step`, to `decay * mean + (1 - decay) *
        weight` (as the target of arXiv 2303.01469, eq. 8)."""
        for name, other in self.roles.items():
            if other.ema_of != role:
                continue
            if name == STUDENT_EMA and step < self._ema_start:
                self._copy(role, name)
            else:
                self._copy_buffers(role, name)
                mean, weights = (self._trainable(n) for n in (name, role))
                if mean and mean[0].device != weights[0].device:  # it is offloaded
                    weights = [weight.to(mean[0].device) for weight in weights]
                torch._foreach_lerp_(mean, weights, 1 - other.decay)

    @torch.no_grad()
    def update_copy(self, role: str) -> None:
        """Give a role with `copy_of` the weights that the other role has now."""
        followed = self.roles[role].copy_of
        assert followed is not None
        self._copy(followed, role)

    def _copy(self, source: str, target: str) -> None:
        self._copy_buffers(source, target)
        torch._foreach_copy_(self._trainable(target), self._trainable(source))

    def _copy_buffers(self, source: str, target: str) -> None:
        pairs = zip(*(self._networks[name].buffers() for name in (target, source)), strict=True)
        for own, its in pairs:
            own.copy_(its)  # statistics, and what never changes

    def _trainable(self, role: str) -> list[Tensor]:
        """This process's part of what training changes."""
        return local([weight for _, weight in trainable(self._networks[role])])

    def whole_network(self) -> nn.Module | None:
        """The network of `eval_role`: itself if it is not sharded, else a whole copy on the CPU for
        saving, in the first process alone (None in the others). All processes must call it."""
        network = self.eval_network
        if self._skeleton is None:
            return network
        tensors = whole_weights(network)
        if not is_main_process():
            return None
        whole = copied(self._skeleton)
        whole.load_state_dict(tensors, assign=True)
        return whole

    def saved_roles(self) -> list[str]:
        """The roles whose weights a checkpoint must hold; frozen ones are made as at the start."""
        return [name for name, role in self.roles.items() if not role.is_frozen]
