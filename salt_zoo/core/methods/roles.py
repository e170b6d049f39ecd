"""Which network a role begins with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.core.methods.method import NetworkSpec
from salt_zoo.core.networks.backbone import Backbone, Start
from salt_zoo.core.networks.copies import copied
from salt_zoo.core.networks.lora import LoraConfig


def with_averages(roles: Mapping[str, NetworkSpec]) -> dict[str, NetworkSpec]:
    """The same roles in the same order, but each after the one that it follows, as an average or a
    copy, and with that one's start, factory and LoRA."""
    found: dict[str, NetworkSpec] = {}

    def add(name: str) -> None:
        role = roles[name]
        if name in found:
            return
        if role.follows is not None:
            add(role.follows)
            its = found[role.follows]
            role = replace(role, start=its.start, factory=its.factory, lora=its.lora)
        found[name] = role

    for name in roles:
        add(name)
    return found


def with_lora(
    roles: Mapping[str, NetworkSpec], configs: Mapping[str, LoraConfig]
) -> dict[str, NetworkSpec]:
    """The same roles, those in `configs` as LoRAs.

    Raises:
        ZooError: a role is not there, not trained, no velocity network, or starts from random
            weights.
    """
    able = [
        name
        for name, role in roles.items()
        if role.learning_rate is not None and role.factory is None and role.start != "random"
    ]
    for name in configs:
        if name not in able:
            raise ZooError(
                f"training.lora.{name}: the method trains no network of that name that starts from "
                f"pretrained weights; {did_you_mean(name, able)}"
            )
    return {
        name: replace(role, lora=configs[name]) if name in configs else role
        for name, role in roles.items()
    }


def is_shared(role: NetworkSpec, offload: Sequence[str] = ()) -> bool:
    """Whether in a run with LoRAs a role's network, or the one it follows, has its frozen weights
    in common with others; what is offloaded has its own."""
    if role.factory is not None or role.start in (None, "random") or is_offloaded(role, offload):
        return False
    return role.lora is not None or role.is_frozen


def is_offloaded(role: NetworkSpec, offload: Sequence[str]) -> bool:
    """Whether a role is one of those that `execution.offload` names; a head never is."""
    if role.factory is not None or role.learning_rate is not None:
        return False
    return ("averages" if role.follows else "frozen") in offload


def check_offload(
    roles: Mapping[str, NetworkSpec], offload: Sequence[str], backbone: Backbone
) -> None:
    """Refuse to offload what LoRAs pass on the device: of frozen networks beside them only a
    teacher of another size can be in main memory.

    Raises:
        ZooError: it is another one, or averages.
    """
    adapted = [role for role in roles.values() if role.lora is not None]
    if not offload or not adapted:
        return
    apart = source(backbone, "teacher") is not source(backbone, "score")
    others = [role for role in roles.values() if is_offloaded(role, ["frozen"])]
    can = apart and all(role.start == "teacher" for role in others)
    can = can and all(role.start != "teacher" for role in adapted)
    right = "[frozen]" if can else "[]"
    if "averages" in offload:
        raise ZooError(
            "execution.offload: averages of LoRAs are adapters, which are small and stay on the "
            f"device; write offload: {right}"
        )
    if not can:
        raise ZooError(
            "execution.offload: LoRAs have their frozen weights in common with other networks, "
            "which are on the device (but for a teacher of another size, backbone.teacher); write "
            f"offload: {right}"
        )


def source(backbone: Backbone, start: Start) -> Backbone:
    """The backbone whose networks those of a `start` are; its random ones are of the same kind.

    An autoregressive backbone has a bidirectional teacher, which may be of another size than its
    student.
    """
    return backbone.source(start)


def maker(
    backbone: Backbone, start: Start
) -> tuple[Backbone, Literal["teacher", "student", "random"]]:
    """The backbone that makes the network of a start, and what it calls that start."""
    if start in ("teacher", "score"):
        return source(backbone, start), "teacher"
    return backbone, "student" if start == "student" else "random"


def make_network(backbone: Backbone, start: Start) -> nn.Module:
    """A new network as a role that starts as `start` has it."""
    whose, known = maker(backbone, start)
    return whose.network(known)


class Originals:
    """The velocity networks that roles begin with: each is loaded once, and copied for the roles
    that share it (57 GB from disk for each of 14 B). The last one gets the original itself.

    Averages and copies are none of them: they begin as what they follow.
    """

    def __init__(self, backbone: Backbone, roles: Iterable[NetworkSpec]) -> None:
        self._backbone = backbone
        self._sources: dict[Start, Backbone] = {}
        starts = [role.start for role in roles if role.start and not role.follows]
        self._wanted = Counter(self.key(start) for start in starts if start != "random")
        self._made: dict[Hashable, nn.Module] = {}

    def network(self, start: Start) -> nn.Module:
        """A new network as a role that starts as `start` has it."""
        if start == "random":
            return make_network(self._backbone, start)
        key = self.key(start)
        self._wanted[key] -= 1
        if key not in self._made:
            self._made[key] = make_network(self._backbone, start)
        return copied(self._made[key]) if self._wanted[key] else self._made.pop(key)

    def key(self, start: Start) -> Hashable:
        """The same for starts whose networks are the same."""
        if start == "student":
            return start
        return id(self._sources.setdefault(start, source(self._backbone, start)))
