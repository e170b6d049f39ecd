"""Data of the next update, made while the one before it computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch

from salt_zoo.core.protocols import Sample


class Place(NamedTuple):
    """Where in a training a micro-batch is: the `number`-th update of `role` in `step`, and which
    of its accumulation steps."""

    role: str
    step: int
    number: int
    part: int


class Prefetch:
    """Reads one micro-batch ahead in a thread of its own.

    What is read depends on its place alone, so that nothing depends on when it was read; a place
    that nobody foresaw is read when it is asked for. The data set is never used by two threads at
    once: whoever else uses it calls `wait` first.

    Args:
        read: makes the sample of a place.
        after: the place that will be asked for after one; None at the end.
        device: of the samples; a thread has a current CUDA device of its own.
    """

    def __init__(
        self,
        read: Callable[[Place], Sample],
        after: Callable[[Place], Place | None],
        device: torch.device,
    ) -> None:
        self._read, self._after = read, after
        self._device = device
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[Place, Future[Sample]] | None = None

    def get(self, place: Place) -> Sample:
        """The sample of `place`; what comes after it is read from now on."""
        self.wait()
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == place:
            sample = ahead[1].result()
        else:
            sample = self._read(place)
        following = self._after(place)
        if following is not None:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "data", initializer=self._start)
            self._ahead = following, self._pool.submit(self._read, following)
        return sample

    def wait(self) -> None:
        """Return when nothing is being read."""
        if self._ahead is not None:
            self._ahead[1].exception()  # an error belongs to whoever asks for that place

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._ahead = None

    def _start(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
