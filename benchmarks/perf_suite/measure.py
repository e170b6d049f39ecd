"""What is measured: the time of every block, the bytes of its memory, cached generation against
recomputed, and what a rollout takes beside its network passes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.perf_suite.clock import Clock
from benchmarks.perf_suite.setup import Subject
from salt_zoo.rollout.sampler import (
    block_noise,
    commit,
    denoise,
    initial_noise,
    renoise_from,
    rollout,
)


@dataclass
class Run:
    """One generation of a video: seconds of each block, and what the memory then takes.

    `denoising` is noise and network passes, `remembering` the memory write; `setup`, before the
    first block, makes the memory.
    """

    setup: float = 0.0
    denoising: list[float] = field(default_factory=list)
    remembering: list[float] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)
    peak_bytes: int | None = None
    #: The clean estimates of the blocks that were asked for.
    shown: dict[int, Tensor] = field(default_factory=dict)

    @property
    def blocks(self) -> list[float]:
        """Seconds of every block without decoding."""
        return [a + b for a, b in zip(self.denoising, self.remembering, strict=True)]


def timed_blocks(
    subject: Subject,
    count: int,
    times: list[float],
    clock: Clock,
    shown: Collection[int] = (),
) -> Iterator[Run]:
    """Generate `count` blocks, decode each and remember it; yields the growing run at each block.

    A block is made in the steps of a stream: the one of `salt_zoo.rollout.sampler`.
    """
    run, device = Run(), torch.device(subject.rng.device)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    blocks, shape, rng = subject.blocks, subject.shape, subject.rng
    renoise, decode, start = renoise_from(rng, blocks, shape), subject.decoder(), 0
    clock.start()
    memory = subject.new_memory(count)
    run.setup = clock.lap()
    for block in range(count):
        clock.start()
        noise = block_noise(rng, blocks, shape, block)
        frames = slice(start, start + noise.shape[2])
        *_, exit = denoise(
            subject.network, noise, subject.condition, times, block=block, frames=frames,
            memory=memory, renoise=renoise, sampler="sde",
        )  # fmt: skip
        run.denoising.append(clock.lap())
        decode(exit.x0)
        run.decoding.append(clock.lap())
        commit(subject.network, exit, blocks, renoise)
        run.remembering.append(clock.lap())
        run.memory_bytes.append(memory.bytes())
        start = frames.stop
        if block in shown:
            run.shown[block] = exit.x0
        if cuda:
            run.peak_bytes = torch.cuda.max_memory_allocated(device)
        yield run


@dataclass
class Past:
    """In the place of a memory: the blocks themselves, as they would be remembered."""

    blocks: list[Tensor] = field(default_factory=list)
    times: list[Tensor] = field(default_factory=list)

    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in self.blocks)

    def switch(self, recent: Any, update_cache: Any) -> None:
        raise NotImplementedError


class Recomputed:
    """A network that keeps no keys and values: every step passes over the past blocks again, under
    the mask of block-causal attention."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, x: Tensor, t: Tensor, condition: Any, memory: Any) -> Tensor:
        video = torch.cat([*memory.blocks, x], dim=2)
        parts = [*memory.blocks, x]
        each = [
            time[:, None].expand(-1, part.shape[2])
            for time, part in zip([*memory.times, t], parts, strict=True)
        ]
        v: Tensor = self.network(video, torch.cat(each, dim=1), condition)
        return v[:, :, -x.shape[2] :]

    def update_cache(self, x: Tensor, t: Tensor, condition: Any, memory: Past) -> None:
        memory.blocks.append(x)
        memory.times.append(t)


def recomputed(subject: Subject) -> Subject:
    """The same subject without a memory of keys and values."""
    return subject.with_network(Recomputed(subject.network), lambda network, x: Past())


class Recorder:
    """A network that notes its inputs: one list of `(x, t)` a block, memory write included."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.passes: list[list[tuple[Tensor, Tensor]]] = [[]]

    def __call__(self, x: Tensor, t: Tensor, condition: Any, memory: Any) -> Tensor:
        self.passes[-1].append((x, t))
        v: Tensor = self.network(x, t, condition, memory)
        return v

    def update_cache(self, x: Tensor, t: Tensor, condition: Any, memory: Any) -> None:
        self.passes[-1].append((x, t))
        self.passes.append([])
        self.network.update_cache(x, t, condition, memory)

    def new_memory(self, x: Tensor) -> Any:
        return self.network.new_memory(x)


class Overhead:
    """What a rollout takes beside its network passes: its time, less that of the bare passes with
    the same inputs and memories; the two are measured in turn, in pairs."""

    def __init__(self, subject: Subject, count: int, times: list[float], clock: Clock) -> None:
        self.subject, self.count, self.times, self.clock = subject, count, times, clock
        recorder = Recorder(subject.network)
        self._generate(recorder)
        self.passes = recorder.passes

    def pair(self, rollout_first: bool) -> dict[str, float]:
        """Seconds of a rollout and of its bare passes."""
        kinds = ["rollout", "passes"] if rollout_first else ["passes", "rollout"]
        return {kind: getattr(self, f"_{kind}")() for kind in kinds}

    def outside(self) -> dict[str, float] | None:
        """Shares of one rollout that pass outside of `passes`, the network's own forward, and of
        the `transformer`'s in it: rotary tables and the slots of the cache then count as well.

        Less noisy than pairs. None on CUDA, whose passes run behind the program, and for a
        compiled network.
        """
        network = self.subject.network
        transformer = getattr(network, "transformer", None)
        if torch.device(self.subject.rng.device).type != "cpu":
            return None
        if getattr(transformer, "_compiled_call_impl", None) is not None:
            return None
        modules = {"passes": network}
        if transformer is not None:
            modules["transformer"] = transformer
        inside = dict.fromkeys(modules, 0.0)
        with contextlib.ExitStack() as stack:
            for name, module in modules.items():
                stack.enter_context(self._timed_forward(module, name, inside))
            whole = self._rollout()
        return {name: 1 - seconds / whole for name, seconds in inside.items()}

    @contextlib.contextmanager
    def _timed_forward(self, module: Any, name: str, inside: dict[str, float]) -> Iterator[None]:
        forward = module.forward

        def timed(*arguments: Any, **options: Any) -> Any:
            began = self.clock.now()
            made = forward(*arguments, **options)
            inside[name] += self.clock.now() - began
            return made

        module.forward = timed
        try:
            yield
        finally:
            del module.forward

    def _rollout(self) -> float:
        self.clock.start()
        self._generate(self.subject.network)
        return self.clock.lap()

    def _passes(self) -> float:
        """Block by block; the memory is written between the timed sections."""
        subject, seconds = self.subject, 0.0
        memory = subject.new_memory(self.count)
        for block in self.passes:
            self.clock.start()
            for x, t in block:
                subject.network(x, t, subject.condition, memory)
            seconds += self.clock.lap()
            if block is not self.passes[-1]:
                subject.network.update_cache(*block[-1], subject.condition, memory)
        return seconds

    def _generate(self, network: Any) -> None:
        subject = self.subject
        shape = subject.latent_shape(self.count)
        rollout(
            network,
            initial_noise(subject.rng, subject.blocks, shape),
            subject.condition,
            self.times,
            blocks=subject.blocks,
            renoise=renoise_from(subject.rng, subject.blocks, shape),
        )


def settled(subject: Subject, slots: int | None) -> int:
    """The first block whose window is full of earlier ones, counted from 0."""
    if slots is None:
        return 1
    return next(n for n in itertools.count(1) if subject.timeline.latents(n) >= slots)
