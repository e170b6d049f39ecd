"""The clock of the speed measurements, and honest numbers from noisy seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import binom, theilslopes
from scipy.stats import t as student_t


class Clock:
    """Seconds between calls; on CUDA each call waits until the device is done.

    With one thread on a CPU it is the process's processor time: what other programs take does not
    count, and on an idle machine it is wall-clock time. `kind` says which it is.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._device = device
        self.kind = "processor" if device.type == "cpu" and threads == 1 else "wall"
        self._read = time.process_time if self.kind == "processor" else time.perf_counter
        self._last = 0.0
        self.start()

    def start(self) -> None:
        self._wait()
        self._last = self._read()

    def lap(self) -> float:
        """Seconds since `start` or the last `lap`."""
        self._wait()
        now = self._read()
        seconds, self._last = now - self._last, now
        return seconds

    def now(self) -> float:
        """The clock's reading, without waiting for a device."""
        return self._read()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """The median, and the quartiles as `low` and `high`."""
    low, median, high = np.quantile(np.asarray(values, dtype=float), [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def median_interval(values: Sequence[float]) -> dict[str, Any]:
    """The median with its 95% interval between order statistics: no assumption on the noise but
    that the values are independent. `low` and `high` are None for fewer than 6 values."""
    ordered = np.sort(np.asarray(values, dtype=float))
    rank = int(binom.ppf(0.025, len(ordered), 0.5))
    known = rank > 0
    return {
        "median": float(np.median(ordered)),
        "low": float(ordered[rank - 1]) if known else None,
        "high": float(ordered[-rank]) if known else None,
        "count": len(ordered),
    }


def growth(runs: Sequence[Sequence[float]], blocks: int = 100) -> dict[str, Any] | None:
    """By which share of itself a block's time grows in `blocks` blocks, with a 95% interval.

    One robust slope (Theil and Sen) for each run, then Student's t over runs: a machine's load
    comes and goes within a run, so that only runs are independent. None for runs of fewer than 3
    blocks; no interval for a single run.
    """
    if not runs or len(runs[0]) < 3:
        return None
    slopes = []
    for run in runs:
        seconds = np.asarray(run, dtype=float)
        slopes.append(blocks * theilslopes(seconds).slope / np.median(seconds))
    value, low, high = float(np.mean(slopes)), None, None
    if len(slopes) > 1:
        error = float(np.std(slopes, ddof=1)) / len(slopes) ** 0.5
        reach = float(student_t.ppf(0.975, len(slopes) - 1)) * error
        low, high = value - reach, value + reach
    within = None if low is None or high is None else low <= 0 <= high
    return {"blocks": blocks, "value": value, "low": low, "high": high, "within_noise": within}
