"""What a stream costs: the latency of its first block, and frames a second."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch


class Clock:
    """Times one block from when it is made; on CUDA with events, so that only `stop` waits."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._began = time.perf_counter()
        self._marks = [self._mark()]

    def lap(self) -> None:
        """All that was asked of the device until now is the first part."""
        self._marks.append(self._mark())

    def stop(self) -> tuple[float, float]:
        """Seconds until `lap`, and until now, when the device is done with all of it."""
        begin, lap, *_ = self._marks
        if isinstance(begin, float):
            return lap - begin, time.perf_counter() - begin
        self._mark().synchronize()
        return begin.elapsed_time(lap) / 1000, time.perf_counter() - self._began

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event


@dataclass
class Cost:
    """Decoded frames and what they took, in seconds; `whole` is denoising and decoding."""

    frames: int = 0
    denoising: float = 0.0
    whole: float = 0.0

    def add(self, frames: int, denoising: float, whole: float) -> None:
        self.frames += frames
        self.denoising += denoising
        self.whole += whole


@dataclass
class Statistics:
    """What a stream has cost so far; time that the caller takes between blocks does not count.

    Denoising includes remembering the block before, and a switch of the prompt. Encoding the
    prompts and loading the decoder come before the first block and are not counted. Rates are
    frames a second of each of the B videos, after the first block (of it, while it is the only
    one), whose latency is shown apart. Times are 0 and rates nan before the first block.
    """

    first: Cost = field(default_factory=Cost)
    later: Cost = field(default_factory=Cost)
    #: Bytes of the memory after the latest block.
    memory_bytes: int = 0

    def add(self, frames: int, denoising: float, whole: float, memory_bytes: int) -> None:
        """Count a block; times in seconds."""
        (self.later if self.first.frames else self.first).add(frames, denoising, whole)
        self.memory_bytes = memory_bytes

    @property
    def frames(self) -> int:
        """Decoded frames so far."""
        return self.first.frames + self.later.frames

    @property
    def first_block_seconds(self) -> float:
        """From asking for the first block to its decoded frames."""
        return self.first.whole

    @property
    def denoising_rate(self) -> float:
        """Frames a second without decoding."""
        cost = self._steady
        return cost.frames / cost.denoising if cost.denoising else float("nan")

    @property
    def whole_rate(self) -> float:
        """Frames a second with decoding."""
        cost = self._steady
        return cost.frames / cost.whole if cost.whole else float("nan")

    @property
    def _steady(self) -> Cost:
        return self.later if self.later.frames else self.first
