"""Video without end: blocks of frames as they are made, and prompts that change on the way.

The steps, noise and memory writes are those of `salt_zoo.rollout.sampler`: a stream is bitwise what
`salt_zoo.rollout.generate.generate` makes of the same draws and length.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import repeat
from torch import Tensor

from salt_zoo.core import first_frame
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.first_frame import FirstFrames
from salt_zoo.core.guidance import Guided
from salt_zoo.core.networks.blocks import Blocks, ExitStep, Renoise
from salt_zoo.core.networks.condition import encode, unconditional
from salt_zoo.core.protocols import Backbone, Condition, Memory
from salt_zoo.rollout.generate import SamplingConfig
from salt_zoo.rollout.sampler import block_noise, commit, denoise, renoise_from
from salt_zoo.rollout.stream_stats import Clock, Statistics


def stream(
    network: Any,
    backbone: Backbone,
    prompt: str,
    rng: KeyedRNG,
    config: SamplingConfig,
    *,
    switches: Mapping[int, str] | None = None,
    blocks: int | None = None,
    first_frames: FirstFrames | None = None,
) -> Stream:
    """Generate block by block: `for frames in stream(...)` yields pixels `[B, C, f, H, W]`.

    Pixels are nominally in [0, 1] and not clamped; f is the number of decoded frames of the block,
    B the number of rows of `draws`. Nothing is generated before it is asked for.

    Args:
        prompt: of all B videos.
        switches: new prompts by the frame of the output (decoded frames, from 0) at which they
            take over. The block with that frame is the first that is made with the new prompt;
            of several in one block the last counts.
        blocks: how many blocks; None is without end, which needs a memory with a window.
        first_frames: of the B videos, for a backbone that generates from them.

    Raises:
        ZooError: at once, before anything is generated: the network is bidirectional, a prompt is
            not understood, the backbone needs first frames or takes none, a switch is outside the
            stream, or a stream without end has a memory that keeps everything.
    """
    return Stream(network, backbone, prompt, rng, config, switches or {}, blocks, first_frames)


@dataclass(frozen=True)
class Timeline:
    """Where the blocks of a backbone lie in the decoded video."""

    blocks: Blocks
    pixel_frames: Callable[[int], int]

    @classmethod
    def of(cls, backbone: Backbone, network: Any = None) -> Timeline:
        """That of `network` (None: of a student).

        Raises:
            ZooError: the network is bidirectional.
        """
        blocks = backbone.blocks(network)
        if blocks.new_memory is None or blocks.frames is None:
            raise ZooError(
                "bidirectional networks denoise all frames jointly and cannot stream; use the "
                "backbone self-forcing"
            )
        return cls(blocks, backbone.pixel_frames)

    def latents(self, count: int) -> int:
        """Latent frames of the first `count` blocks."""
        size = self.blocks.frames or 0
        return self.blocks.size(0, size) + (count - 1) * size if count else 0

    def pixels(self, count: int) -> int:
        """Decoded frames of the first `count` blocks."""
        return self.pixel_frames(self.latents(count)) if count else 0

    def count(self, frames: int) -> int:
        """How many blocks it takes to fill `frames` decoded frames."""
        least, most = 0, 1
        while self.pixels(most) < frames:
            least, most = most, 2 * most
        while least < most:  # `bisect` counts no further than 2**63
            middle = (least + most) // 2
            least, most = (least, middle) if self.pixels(middle) >= frames else (middle + 1, most)
        return least

    def places(self, switches: Mapping[int, str], count: int | None) -> dict[int, str]:
        """Prompts by the block from which on they hold, in a stream of `count` blocks.

        Raises:
            ZooError: a switch lies in the first block, or behind the last.
        """
        found = {}
        for frame, prompt in sorted(switches.items()):
            if frame < self.pixels(1):
                raise ZooError(
                    f"switch at frame {frame}: the first prompt covers the whole first block; the "
                    f"earliest frame for a switch is {self.pixels(1)}"
                )
            if count is not None and frame >= self.pixels(count):
                raise ZooError(
                    f"switch at frame {frame}: the stream has {self.pixels(count)} frames, the "
                    f"last is {self.pixels(count) - 1}"
                )
            found[self.count(frame + 1) - 1] = prompt
        return found


class Stream:
    """The iterator that `stream` returns.

    Inference mode is on only while a block is made, never in the caller between blocks.

    Attributes:
        timeline: which decoded frames each block has.
        memory: what is remembered of the past.
        statistics: what it has cost so far.
    """

    def __init__(
        self,
        network: Any,
        backbone: Backbone,
        prompt: str,
        rng: KeyedRNG,
        config: SamplingConfig,
        switches: Mapping[int, str],
        count: int | None,
        first_frames: FirstFrames | None,
    ) -> None:
        self.timeline = Timeline.of(backbone, network)
        self.count = count
        self.statistics = Statistics()
        self._blocks, self._draws, self._sampler = self.timeline.blocks, rng, config.sampler
        self._shape = backbone.latent_shape
        self._times = config.step_times
        places = self.timeline.places(switches, count)
        with torch.inference_mode():
            rows = len(rng.rows)
            image = first_frame.check(backbone, first_frames)(range(rows))
            self._prompt = {**encode(backbone, [prompt] * rows), **image}
            self._switches = {
                block: {**encode(backbone, [text] * rows), **image}
                for block, text in places.items()
            }
            nothing = {**unconditional(backbone, rows), **image}
            self._network = Guided(network, nothing, config.guidance_scale)
            self.memory = self._new_memory()
            self._decode = backbone.frame_decoder()
        self._made = self._run()

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        with torch.inference_mode():
            return next(self._made)

    def _new_memory(self) -> Memory:
        noise = block_noise(self._draws, self._blocks, self._shape, 0)
        if self.count is not None:  # made for the whole length, as for a video
            frames = self.timeline.latents(self.count)
            noise = repeat(noise[:, :, 0], "b c h w -> b c f h w", f=frames)
        memory = self._blocks.memory(self._network, noise)
        assert memory is not None  # the timeline has refused networks without one
        if self.count is None and memory.limit is not None:
            raise ZooError(
                "an endless stream needs a memory with a window, and this one keeps every frame: "
                "choose backbone.memory=window (--memory window), or set the stream's length "
                "(blocks=N; --frames N or --seconds S)"
            )
        return memory

    def _run(self) -> Iterator[Tensor]:
        condition, start = self._prompt, 0
        recent: deque[ExitStep] = deque()
        draw = renoise_from(self._draws, self._blocks, self._shape)
        for block in itertools.count() if self.count is None else range(self.count):
            clock = Clock(self._draws.device)
            # copies to the device come first, while it has nothing to do
            noise = block_noise(self._draws, self._blocks, self._shape, block)
            renoise = self._drawn(draw, block)
            if recent:
                commit(self._network, recent[-1], self._blocks, draw)
            if block in self._switches:
                condition = self._switches[block]
                self._switch(recent, condition, draw)
            frames = slice(start, start + noise.shape[2])
            steps = denoise(
                self._network,
                noise,
                condition,
                self._times,
                block=block,
                frames=frames,
                memory=self.memory,
                renoise=renoise,
                sampler=self._sampler,
            )
            *_, last = steps
            clock.lap()
            pixels = self._decode(last.x0)
            _keep(recent, last, self.memory.slots)
            start = frames.stop
            denoising, whole = clock.stop()  # the one synchronisation of a block
            self.statistics.add(pixels.shape[2], denoising, whole, self.memory.bytes())
            yield pixels

    def _drawn(self, draw: Renoise, block: int) -> Renoise:
        """The noise of all steps of one block, drawn now."""
        if self._sampler == "ode":
            return draw
        noises = {t: draw(block, t) for t in self._times[1:]}
        return lambda block, t: noises[t]

    def _switch(self, recent: deque[ExitStep], condition: Condition, draw: Renoise) -> None:
        def update_cache(x0: Tensor) -> None:
            (old,) = (exit for exit in recent if exit.x0 is x0)
            commit(self._network, replace(old, condition=condition), self._blocks, draw)

        self.memory.switch([exit.x0 for exit in recent], update_cache)


def _keep(recent: deque[ExitStep], exit: ExitStep, slots: int | None) -> None:
    """Add a finished block, and drop those that a memory of `slots` frames cannot use."""
    recent.append(exit)
    if slots is not None:
        while sum(kept.x0.shape[2] for kept in recent) - recent[0].x0.shape[2] >= slots:
            recent.popleft()
