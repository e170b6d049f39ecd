"""The networks whose speed is measured: one for each memory, all with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from salt_zoo.config.overrides import apply_overrides
from salt_zoo.config.parts import configure_part
from salt_zoo.core.base.errors import ZooError, did_you_mean
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.methods.attention import (
    NATIVE,
    attention_use,
    check_attention,
    choose_attention,
)
from salt_zoo.core.networks.blocks import Blocks
from salt_zoo.core.networks.condition import example
from salt_zoo.core.networks.precision import Precision, with_precision
from salt_zoo.core.protocols import Backbone, Condition
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.stream import Timeline

BACKBONE = "self-forcing"
#: A prompt that all sizes understand.
PROMPT = "a 7 moving up-left slowly"


@dataclass(frozen=True)
class Subject:
    """A network with one memory, and what it is asked to make."""

    name: str
    options: Mapping[str, Any]
    network: Any
    blocks: Blocks
    timeline: Timeline
    condition: Condition
    rng: KeyedRNG
    shape: tuple[int, int, int, int]
    #: Makes the decoder of one stream.
    decoder: Callable[[], Callable[[Tensor], Tensor]]

    def latent_shape(self, count: int) -> tuple[int, int, int, int]:
        """Of a video of `count` blocks."""
        return (self.shape[0], self.timeline.latents(count), *self.shape[2:])

    def new_memory(self, count: int) -> Any:
        """An empty memory for `count` blocks."""
        like = torch.empty(1, device=self.rng.device)
        return self.blocks.memory(
            self.network, like.expand(len(self.rng.rows), *self.latent_shape(count))
        )

    def with_network(self, network: Any, new_memory: Callable[[Any, Tensor], Any]) -> Subject:
        return replace(self, network=network, blocks=replace(self.blocks, new_memory=new_memory))


def make_subjects(
    zoo: Zoo,
    size: str,
    memories: Sequence[str],
    overrides: Sequence[str],
    *,
    batch: int,
    device: torch.device,
    random: bool,
    precision: Precision = "auto",
    attention: str = NATIVE,
    compiled: bool = False,
) -> tuple[list[Subject], Backbone]:
    """One subject for each memory, and the backbone of the first.

    Raises:
        ZooError: an unknown name or option, or weights that are not there.
    """
    content = _content(zoo, size, memories, overrides)
    subjects: list[Subject] = []
    backbones: list[Any] = []
    use = attention_use(precision, device, backward=False)
    chosen = attention, f"--attention {attention}", use
    for name in memories:
        memory = {"name": name, **(content["memories"].get(name) or {})}
        part = {**content["backbone"], "memory": memory}
        config = configure_part(zoo.backbones, part, zoo, "backbone")
        backbone = zoo.backbones.create(BACKBONE, config, zoo)
        if not subjects:
            check_attention(backbone, *chosen)
        network = _network(backbone, subjects[0].network if subjects else None, device, random)
        with_precision(network, precision, device, frozen=True)
        choose_attention(network, *chosen)
        backbones.append(backbone)
        first = backbones[0]
        options = {k: v for k, v in getattr(config, "memory", memory).items() if k != "name"}
        subjects.append(
            Subject(
                name,
                options,
                network,
                backbone.blocks(network),
                Timeline.of(backbone, network),
                subjects[0].condition if subjects else _condition(first, batch, device, random),
                KeyedRNG(0, ("perf",), range(batch), device),
                backbone.latent_shape,
                subjects[0].decoder if subjects else _decoder(first, device, random),
            )
        )
    if compiled:  # not before all share their weights
        for subject in subjects:
            subject.network.compile()
    return subjects, backbones[0]


def _content(
    zoo: Zoo, size: str, memories: Sequence[str], overrides: Sequence[str]
) -> dict[str, Any]:
    """The backbone and the options of memories, as `--set` changes them."""
    for name in memories:
        zoo.memories[name]  # an unknown name is an error with a suggestion
    zoo.sizes[size]
    content = apply_overrides(
        {"backbone": {"name": BACKBONE, "size": size}, "memories": {}}, overrides
    )
    for key in content:
        if key not in ("backbone", "memories"):
            raise ZooError(
                f"--set {key}: unknown key; {did_you_mean(key, ['backbone', 'memories'])}"
            )
    backbone, options = content["backbone"], content["memories"]
    if not isinstance(backbone, dict) or not isinstance(options, dict):
        raise ZooError(
            "--set: backbone and memories are groups of keys, as in backbone.options.a=1"
        )
    for key, value in (("name", BACKBONE), ("size", size), ("memory", None)):
        if backbone.get(key) != value:
            raise ZooError(f"--set backbone.{key}: choose with --size and --memories")
    for name, group in options.items():
        if name not in memories:
            raise ZooError(f"--set memories.{name}: not measured; {did_you_mean(name, memories)}")
        if not isinstance(group, dict):
            raise ZooError(f"--set memories.{name}: write memories.{name}.OPTION=VALUE")
    return content


def _network(backbone: Any, first: Any, device: torch.device, random: bool) -> Any:
    """A network on the device; one after the first has its weights, in the same memory."""
    start = "random" if random or first is not None else "student"
    if first is None:
        torch.manual_seed(0)
        network = backbone.to(device).network(start)
    else:
        network = backbone.to("meta").network(start)
        network.load_state_dict(first.state_dict(), assign=True)
        backbone.to(device)
    return network.eval()


def _condition(backbone: Any, batch: int, device: torch.device, random: bool) -> Condition:
    """An encoded prompt; with random weights made-up numbers, so that no encoder is needed."""
    prompts = [PROMPT] * batch
    if not random:
        return example(backbone, prompts)
    shapes = example(backbone.to("meta"), prompts)
    backbone.to(device)
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=generator).to(device)
        for key, value in shapes.items()
    }


def _decoder(
    backbone: Any, device: torch.device, random: bool
) -> Callable[[], Callable[[Tensor], Tensor]]:
    modules = backbone.codec_modules() if random else {}
    if "vae" in modules and "tiny_decoder" not in modules:  # its weights are a file that is here
        return random_decoder(modules["vae"], device)
    make: Callable[[], Callable[[Tensor], Tensor]] = backbone.frame_decoder
    return make


def random_decoder(vae: Any, device: torch.device) -> Callable[[], Callable[[Tensor], Tensor]]:
    """Decoders of a VAE that has no data yet, with random weights."""
    from salt_zoo_wan.encoders.frame_decoder import FrameDecoder

    vae = vae.to_empty(device=device).eval().requires_grad_(False)
    for weight in [*vae.parameters(), *vae.buffers()]:
        weight.normal_(std=0.02)
    mean = torch.zeros(1, vae.config.z_dim, 1, 1, 1, device=device)
    return lambda: FrameDecoder(vae, mean, torch.ones_like(mean))
