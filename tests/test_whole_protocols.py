"""Half of a protocol is refused in one line that names what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from salt_zoo.conformance import check_method
from salt_zoo.core.protocols import MaskedForward
from salt_zoo.plugin.isolation.foreign import BrokenPart
from salt_zoo.plugin.isolation.whole_protocols import check_protocols, own_members
from salt_zoo.plugin.manager import Zoo, load_zoo
from tests.blocks.plugin import ToyBackbone, ToyData, ToyNetwork
from tests.heads.plugin import Critic
from tests.test_methods import Sound


class Smooth:
    weight = 1.0

    def __init__(self, config: Any, zoo: Any) -> None:
        pass

    def on_exit(self, exit: Any, path: Any, step: Any) -> None:
        return None

    def on_video(self, video: Any, path: Any, step: Any) -> Any:
        return video.mean()


def without(parent: type, *names: str, **more: Any) -> type:
    """A class like `parent` that lacks some of its members."""
    members = {**more}
    for one in reversed(parent.__mro__[:-1]):
        members |= {k: v for k, v in vars(one).items() if k not in ("__dict__", "__weakref__")}
    return type("Half", (), {k: v for k, v in members.items() if k not in names})


def method(self: Any, *arguments: Any) -> Any:
    return {}


HALVES: dict[str, tuple[str, type, str]] = {
    "a state that is not loaded": (
        "methods",
        type("M", (Sound,), {"state_dict": method}),
        "has 'state_dict' and lacks 'load_state_dict'; write all of "
        "salt_zoo.core.protocols.Stateful",
    ),
    "a state that is not saved": (
        "objectives",
        type("O", (Smooth,), {"load_state_dict": method}),
        "has 'load_state_dict' and lacks 'state_dict'",
    ),
    "networks that are never trained": (
        "objectives",
        without(Critic, "on_generated"),
        "has 'roles', 'needs_data' and lacks 'on_generated'; write all of "
        "salt_zoo.core.protocols.NetworkObjective",
    ),
    "data without networks": (
        "objectives",
        type("O", (Smooth,), {"needs_data": True}),
        "has 'needs_data' and lacks 'roles', 'on_generated'",
    ),
    "an objective without its exit": (
        "objectives",
        without(Smooth, "on_exit"),
        "lacks 'on_exit'; see salt_zoo.core.protocols.Objective",
    ),
    "a dataset that cannot be told from others": (
        "datasets",
        without(ToyData, "fingerprint"),
        "lacks 'fingerprint'; see salt_zoo.core.protocols.Dataset",
    ),
    "a backbone that does not save": (
        "backbones",
        without(ToyBackbone, "save"),
        "lacks 'save'; see salt_zoo.core.protocols.Backbone",
    ),
    "an export without a check": (
        "backbones",
        type("B", (ToyBackbone,), {"export": method}),
        "has 'export' and lacks 'check_export'",
    ),
    "some of the LoRA's forms": (
        "backbones",
        type("B", (ToyBackbone,), {"lora_formats": (), "save_lora": method}),
        "lacks 'check_lora', 'export_lora', 'extract_lora'",
    ),
}


@pytest.mark.parametrize(("registry", "part", "said"), HALVES.values(), ids=HALVES)
def test_half_a_protocol_is_refused(registry: str, part: type, said: str):
    zoo = Zoo()
    zoo_registry = getattr(zoo, registry)
    zoo_registry.plugin = "mine"
    zoo_registry.add("half", part, "half of a protocol")
    with pytest.raises(BrokenPart) as caught:
        zoo_registry.create("half", zoo_registry["half"].options_model()(), zoo)
    line = str(caught.value)
    assert line.startswith(f"{zoo_registry.kind} 'half' of plugin 'mine': it ") and said in line


def test_a_memory_that_does_not_declare_its_span():
    from salt_zoo_self_forcing.memories.full import FullMemory

    zoo = load_zoo()
    zoo.memories.add("half", without(FullMemory, "span"), "half of a protocol")
    options = zoo.backbones.configure("self-forcing", {"memory": "half"}, "test")
    with pytest.raises(BrokenPart, match=r"memory 'half' .* it lacks 'span'; see salt_zoo_self"):
        zoo.backbones.create("self-forcing", options, zoo)


def test_a_network_that_masks_by_half():
    class Half(ToyNetwork):
        def can_mask(self, frames: int) -> bool:
            return True

    class Backbone(ToyBackbone):
        def network(self, start: Any) -> Any:
            return Half()

    zoo = load_zoo(["tests.blocks.plugin"])
    zoo.backbones.add("half", Backbone, "half of a protocol")
    with pytest.raises(BrokenPart, match="has 'can_mask' and lacks 'forward_masked'"):
        check_method("teacher-forcing", "half", "toy-blocks", zoo)
    assert own_members(MaskedForward) == ["can_mask", "forward_masked"]


def test_a_property_is_there_and_is_not_computed():
    class Lazy(ToyBackbone):
        @property
        def negative_prompt(self) -> str:  # type: ignore[override]
            raise RuntimeError("asked")

    check_protocols(Lazy(None, None), "backbone", "backbone")
