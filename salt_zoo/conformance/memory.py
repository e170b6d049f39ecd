"""Whether an autoregressive backbone with a memory generates as every one does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from salt_zoo.config.parts import configure_part, named
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.first_frame import FirstFrames, of_image
from salt_zoo.core.networks.blocks import ExitStep
from salt_zoo.core.protocols import Backbone, Condition, MaskedForward
from salt_zoo.plugin.manager import Zoo
from salt_zoo.rollout.forcing import forward_teacher_forced
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.rollout.sampler import full_time, initial_noise, iter_rollout, renoise_from
from salt_zoo.rollout.stream import Timeline, stream

#: Relative, of velocities: sums over keys in another order are rounded otherwise.
TOLERANCE = 1e-3

_RNG = KeyedRNG(0, ("conformance",), range(2))


def check_memory(
    backbone: str | Mapping[str, Any], prompt: str, zoo: Zoo, *, blocks: int = 4
) -> None:
    """Generate with a backbone's student and check that

    - a stream is bitwise the video that is made at once, with and without guidance;
    - a longer video begins as a shorter one;
    - a pass changes nothing that is remembered, with or without gradient: only `update_cache` does;
    - a block sees of the blocks before it what the memory declares: where it has an equivalent mask
      (`MaskedForward`), one masked pass over a video gives the velocities of its blocks one by one;
    - the prompt may change, and what is made before that stays what it was.

    Args:
        backbone: as in a run's YAML, with its memory.
        prompt: that it understands.
        blocks: of the video; as many as it takes until the memory has to let something go.

    Raises:
        AssertionError: one of these is not so.
    """
    part = named(backbone if isinstance(backbone, str) else dict(backbone))
    options = configure_part(zoo.backbones, part, zoo, "check_memory")
    made: Backbone = zoo.backbones.create(part["name"], options, zoo)
    network: Any = made.network("student").eval()
    frames, images = Timeline.of(made, network).latents(blocks), _images(made)

    def video(sampling: SamplingConfig, count: int = frames) -> Tensor:
        return generate(
            network, made, [prompt] * 2, _RNG, sampling, frames=count, first_frames=images
        )

    for sampling in (SamplingConfig(steps=2), SamplingConfig(steps=1, guidance_scale=2.0)):
        offline = made.decode_video(video(sampling))
        parts = stream(network, made, prompt, _RNG, sampling, blocks=blocks, first_frames=images)
        streamed = torch.cat([*parts], dim=2)
        assert torch.equal(streamed, offline), (
            f"a stream differs from the video made at once (guidance {sampling.guidance_scale:g})"
        )
    sampling = SamplingConfig(steps=2)
    whole = video(sampling)
    shorter = Timeline.of(made, network).latents(blocks - 1)
    assert torch.equal(video(sampling, shorter), whole[:, :, :shorter]), (
        "a shorter video is not the beginning of a longer one"
    )
    assert torch.equal(_probed(made, network, prompt, frames), whole), (
        "a pass has changed what is remembered; only update_cache may do that"
    )
    _check_mask(made, network, prompt, blocks)
    _check_switch(made, network, prompt, blocks)


@torch.no_grad()
def _check_mask(backbone: Backbone, network: Any, prompt: str, blocks: int) -> None:
    """Over the longest video of at most `blocks` blocks for which the memory has a mask."""
    can_mask = network.can_mask if isinstance(network, MaskedForward) else lambda frames: False
    timeline, layout = Timeline.of(backbone, network), backbone.blocks(network)
    counts = [timeline.latents(count) for count in range(blocks, 0, -1)]
    frames = next((count for count in counts if can_mask(count)), None)
    if frames is None:
        return
    channels, _, height, width = backbone.latent_shape
    x0, x = (_RNG.randn((channels, frames, height, width), key) for key in ("clean", "noisy"))
    t = torch.full((len(x), frames), 0.7)
    condition = _condition(backbone, prompt, len(x))

    def velocities(masked: bool) -> Tensor:
        passes = forward_teacher_forced(network, x, t, x0, condition, layout, masked=masked)
        return torch.cat([v for _, v in passes], dim=2)

    whole, apart = velocities(True), velocities(False)
    for block, part in enumerate(layout.split(frames)):
        one, other = whole[:, :, part], apart[:, :, part]
        away = float((one - other).norm() / other.norm().clamp(min=1e-12))
        assert away < TOLERANCE, (
            f"block {block} of {frames} frames does not see what the memory declares: its velocity "
            f"in one masked pass is off by {away:.2g} from that with the cache"
        )


def _probed(backbone: Backbone, network: Any, prompt: str, frames: int) -> Tensor:
    """The same video as `generate` makes, with passes in between that nobody needs."""
    layout, shape = backbone.blocks(network), backbone.latent_shape
    shape = (shape[0], frames, *shape[2:])
    condition = _condition(backbone, prompt, 2)
    sampling = SamplingConfig(steps=2)

    def probe(exit: ExitStep) -> ExitStep:
        for gradient in (False, True):
            with torch.set_grad_enabled(gradient):
                x = torch.randn(exit.x.shape, generator=torch.Generator().manual_seed(0))
                network(x, full_time(0.3, x), condition, exit.memory)
        return exit

    with torch.no_grad():
        steps = iter_rollout(
            network,
            initial_noise(_RNG, layout, shape),
            condition,
            sampling.step_times,
            blocks=layout,
            renoise=renoise_from(_RNG, layout, shape),
            sampler=sampling.sampler,
            every_step=True,
        )
        last = len(sampling.step_times) - 1
        return torch.cat([one.x0 for one in map(probe, steps) if one.step == last], dim=2)


def _check_switch(backbone: Backbone, network: Any, prompt: str, blocks: int) -> None:
    """From the last block on without a prompt."""
    timeline, sampling = Timeline.of(backbone, network), SamplingConfig(steps=1)
    place = timeline.pixels(blocks - 1)

    def made(switches: Mapping[int, str]) -> Tensor:
        parts = stream(
            network,
            backbone,
            prompt,
            _RNG,
            sampling,
            switches=switches,
            blocks=blocks,
            first_frames=_images(backbone),
        )
        return torch.cat([*parts], dim=2)

    switched, plain = made({place: ""}), made({})
    assert torch.equal(switched[:, :, :place], plain[:, :, :place]), (
        "a change of the prompt has changed frames before it"
    )
    assert switched.isfinite().all(), "a change of the prompt makes values that are not finite"


def _condition(backbone: Backbone, prompt: str, count: int) -> Condition:
    images = _images(backbone)
    text = backbone.encode_prompts([prompt] * count)
    return {**text, **(images(range(count)) if images else {})}


def _images(backbone: Backbone) -> FirstFrames | None:
    """The same noise as every video's first frame, where the backbone generates from one."""
    if backbone.image_shape is None:
        return None
    generator = torch.Generator().manual_seed(1)
    return of_image(backbone, torch.rand(backbone.image_shape, generator=generator))
