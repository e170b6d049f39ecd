"""Compares, in each of the processes that share a video, what they make together with what one
makes alone; then trains.

The file given lists runs as that of `sharded_runs.py`. Beside it each process writes relative
differences by name.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.networks.token_sharing import share_tokens
from salt_zoo_wan.experts.experts import WanExperts
from salt_zoo_wan.transformer.network import WanNetwork
from tests.plugins import tiny_causal as tiny

FRAMES = 6
SHAPE = (tiny.CHANNELS, FRAMES, tiny.SIZE, tiny.SIZE)
#: Memories at sizes that a video of `FRAMES` in blocks of 2 leaves; a mask says what they see.
MEMORIES: dict[str, dict[str, Any]] = {
    "full": {},
    "window": {"frames": 4, "sink": 1},
    "block-relative": {"frames": 4, "sink": 1},
    "ema-sink": {"frames": 4, "sink": 1, "decay": 0.5},
}


def off(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    return tiny.relative_error(found, wanted)


def exchanges(group: SequenceGroup) -> Iterator[tuple[str, float]]:
    """The collectives in float64 and their gradients, to the second order and forwards."""
    generator = torch.Generator().manual_seed(0)
    x, weight, tangent = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 6, 8), (8, 8), (3, 6, 8))
    )
    part = group.own_tokens(x, 1)
    heads = group.to_heads(part)
    yield "tokens to heads", off(heads, x.chunk(group.size, dim=2)[group.rank])
    yield "heads to tokens", off(group.to_tokens(heads), part)
    yield "all tokens", off(group.all_tokens(part), x)

    def alone(x: Tensor, weight: Tensor) -> Tensor:
        return (x @ weight).sin().cumsum(1).square() + x

    def together(x: Tensor, weight: Tensor) -> Tensor:
        mine = group.own_tokens(group.given_whole(x), 1)
        mixed = group.to_heads((mine @ weight).sin()).cumsum(1).square()
        return group.all_tokens(group.to_tokens(mixed)) + x

    def derivatives(of: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = of(a, w)
        (slope,) = torch.autograd.grad(y.pow(3).mean(), a, create_graph=True)
        twice = torch.autograd.grad(slope.square().sum(), (a, w), retain_graph=True)
        once = torch.autograd.grad(y.pow(3).mean(), (a, w))
        with forward_ad.dual_level():
            dual = of(forward_ad.make_dual(x, tangent), weight)
            moved = forward_ad.unpack_dual(dual).tangent
        return y, *once, *twice, moved

    names = ("value", "gradient", "weights' gradient", "second gradient",
             "weights' second gradient", "tangent")  # fmt: skip
    for name, found, wanted in zip(names, derivatives(together), derivatives(alone), strict=True):
        mean = group.total(found) / group.size if "weights" in name else found
        yield name, off(mean, wanted)


#: One a video, and one a frame.
TIMES = {"a video": tiny.at(0.7), "a frame": torch.linspace(0.2, 0.9, FRAMES).expand(2, -1)}
#: Of two experts with the boundary 0.5: a video of each, and both of one.
SIDES = {"two sides": torch.tensor([0.3, 0.7]), "one side": torch.tensor([0.4, 0.3])}
#: By time. The first of two passes is one at that time, features are computed in their own way.
KINDS = (["a pass", "features"], ["two passes", "features"])
#: With each of them, where a network makes masked passes.
MASKED = ["a clean past"]
#: Of each kind of pass.
COMPARED = ["value", "gradient", "weights' gradient"]


def passes(
    network: Any, group: SequenceGroup, times: Mapping[str, Tensor] = TIMES
) -> Iterator[tuple[str, float]]:
    """Velocities, features and gradients of whole videos."""
    networks = [network, copy.deepcopy(network)]
    share_tokens(networks[1], group, SHAPE)

    def made(network: Any, t: Tensor, of: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        network.requires_grad_(True).zero_grad()
        x = tiny.video(FRAMES).requires_grad_()
        v = network(x, t, tiny.prompt())
        if of == "features":
            v = network.features(x, t, tiny.prompt(), 0.5)
        elif of == "two passes":  # the second gets what the first returns
            v = network(x - 0.5 * v, t, tiny.prompt())
        elif of == "a clean past":
            v = network.forward_masked(v, t, x, tiny.prompt())
        (v.square().mean() + (v / v.std()).pow(3).mean()).backward()
        return v, x.grad, {name: p.grad for name, p in network.named_parameters()}

    masked = isinstance(network, tiny.CausalWanNetwork) and network.can_mask(FRAMES)
    for (name, t), every in zip(times.items(), KINDS, strict=True):
        for of in [*every, *(MASKED if masked else [])]:
            alone, together = (made(one, t, of) for one in networks)
            wanted = {name: g for name, g in alone[2].items() if g is not None}
            assert wanted.keys() == {name for name, g in together[2].items() if g is not None}
            found = torch.cat(
                [(group.total(together[2][key]) / group.size).flatten() for key in wanted]
            )
            gradients = torch.cat([g.flatten() for g in wanted.values()])
            pairs = (*zip(together[:2], alone[:2], strict=True), (found, gradients))
            for what, (mine, whole) in zip(COMPARED, pairs, strict=True):
                yield f"{of}, time of {name}: {what}", off(mine, whole)


def memories(name: str, group: SequenceGroup) -> Iterator[tuple[str, float]]:
    """A video block by block, a new prompt, and how far one memory is from another."""
    network = tiny.network(tiny.policy(name, **MEMORIES[name]))
    networks = [network, copy.deepcopy(network)]
    share_tokens(networks[1], group, SHAPE)
    found = []
    for one in networks:
        video, clean = [], []
        kept = [one.new_memory(tiny.video(FRAMES)) for _ in range(2)]
        empty = kept[0].bytes()
        for block, frames in enumerate(one.partition.split(2 * FRAMES)[:4]):
            x, prompt = tiny.video(2 * FRAMES)[:, :, frames], tiny.prompt(2 + block // 3)
            if block == 3 and name == "full":
                break
            if block == 3:
                kept[0].switch(
                    clean, lambda x, one=one, kept=kept: one.update_cache(
                        x, tiny.at(0.0), tiny.prompt(3), kept[0]
                    )
                )  # fmt: skip
            for t in (1.0, 0.5):
                video.append(one(x, tiny.at(t), prompt, kept[0]))
            clean.append(video[-1])
            one.update_cache(clean[-1], tiny.at(0.0), prompt, kept[0])
            if block == 0:
                one.update_cache(x, tiny.at(0.0), prompt, kept[1])
            if block < 2:
                distance = kept[0].distance(kept[1])
        found.append((torch.cat(video, dim=2), distance, empty))
    (alone, far, whole), (together, near, share) = found
    assert far.min() > 0.01  # the second one stopped
    yield f"{name}: video", off(together, alone)
    yield f"{name}: distance", off(near, far)
    yield f"{name}: bytes", abs(share * group.size / whole - 1)


def backbone_of_activations() -> Any:
    from salt_zoo.plugin.manager import load_zoo

    zoo = load_zoo(["tests.sizes.plugin"])
    config = zoo.backbones.configure("wan", {"size": "test-small"}, "test")
    return zoo.backbones.create("wan", config, zoo)


def activations(group: SequenceGroup, rows: int = 8) -> Iterator[tuple[str, float]]:
    """Bytes at the fullest moment of a pass and its backward pass."""
    from salt_zoo.costs.activations import _Peak

    backbone = backbone_of_activations()
    for checkpointing in (False, True):
        network = backbone.network("teacher")
        if checkpointing:
            network.enable_gradient_checkpointing()
        share_tokens(network, group, backbone.latent_shape)
        for parameter in network.requires_grad_(True).parameters():
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        x, prompts = torch.randn(rows, *backbone.latent_shape), backbone.encode_prompts([""] * rows)
        with _Peak(network.parameters()) as peak:
            network(x, tiny.at(0.5, rows), prompts).square().mean().backward()
        yield f"checkpointing {checkpointing}", peak.most


def main(file: str) -> None:
    from salt_zoo.config.execution import ExecutionConfig
    from salt_zoo.training.devices import join_processes
    from salt_zoo.training.state.layout import make_layout
    from tests.training import sharded_runs

    join_processes("cpu")
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    layout = make_layout(ExecutionConfig(sequence=2), 2, world, rank)
    group = layout.sequence_group("cpu")
    assert group is not None
    experts = WanExperts(*(WanNetwork(tiny.transformer(seed)) for seed in (0, 1)), boundary=0.5)
    in_turn = tiny.policy("block-relative", **MEMORIES["block-relative"])
    numbers = {
        "exchange": dict(exchanges(group)),
        "wan": dict(passes(WanNetwork(tiny.transformer()), group)),
        "experts": dict(passes(experts, group, SIDES)),
        "causal": dict(passes(tiny.network(tiny.policy("full")), group)),
        "block by block": dict(passes(tiny.network(in_turn), group)),
        "activations": dict(activations(group)),
    }
    for name in MEMORIES:
        numbers[f"memory {name}"] = dict(memories(name, group))
    Path(f"{file}-{rank}.json").write_text(json.dumps(numbers))
    sharded_runs.main(json.loads(Path(file).read_text()))


if __name__ == "__main__":
    main(sys.argv[1])
