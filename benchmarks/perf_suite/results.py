"""All measurements of a call of `benchmarks.perf`, in turn and repeated, as one JSON object.

Repetitions go round the memories, so that a machine that is busy for a while is so for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.perf_suite.clock import Clock, growth, median_interval, quartiles
from benchmarks.perf_suite.measure import Overhead, Run, recomputed, settled, timed_blocks
from benchmarks.perf_suite.setup import Subject
from salt_zoo.core import flow
from salt_zoo.core.base.errors import reason

#: Bytes that the keys and values of a memory without a window may take, unless told otherwise.
MOST_BYTES = 8 << 30
#: Called with what is being measured and how many blocks were made for it since the last call.
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    blocks: int = 200
    #: Blocks of a memory that keeps everything, whose time grows; at most `blocks`.
    growing: int = 40
    #: Blocks of generation with recomputed attention; at most `growing`.
    recomputed: int = 20
    repetitions: int = 5
    #: Pairs of a rollout and its bare passes, and the blocks of each.
    pairs: int = 30
    pair_blocks: int = 8
    nfe: int = 4
    shift: float = 5.0


@dataclass(frozen=True)
class _Measured:
    subject: Subject
    count: int
    settled: int
    slots: int | None
    limit: int | None
    runs: list[Run]


@torch.inference_mode()
def measure(
    subjects: Sequence[Subject], plan: Plan, device: torch.device, progress: Progress
) -> dict[str, Any]:
    """Everything but the provenance; its keys are those of `perf.json`."""
    clock = Clock(device, torch.get_num_threads())
    times = flow.step_list(plan.nfe, plan.shift)
    load = [_load()]
    measured = [_prepare(subject, plan) for subject in subjects]

    def run(subject: Subject, count: int, what: str) -> Run:
        shown = {min(plan.recomputed, count) - 1}
        done = Run()
        for growing in timed_blocks(subject, count, times, clock, shown):
            progress(what, 1)
            done = growing
        return done

    for one in measured:  # warm: libraries are loaded, kernels chosen, networks compiled
        run(one.subject, min(one.count, one.settled + 2), f"{one.subject.name}: warming up")
    order = sorted(measured, key=lambda one: one.limit is None)
    without = next((one for one in order if _can_recompute(one, plan)), None)
    again: list[Run] = []
    failed = None
    if without:
        try:
            run(recomputed(without.subject), _short(without, plan), "recomputed: warming up")
        except (RuntimeError, MemoryError) as error:
            failed = reason(error)  # a kernel may be missing or memory short; the rest still counts
    for _ in range(plan.repetitions):
        for one in measured:
            one.runs.append(run(one.subject, one.count, one.subject.name))
        if without and not failed:
            again.append(run(recomputed(without.subject), _short(without, plan), "recomputed"))
    memories = {one.subject.name: _summary(one) for one in measured}
    for one in measured:
        name = one.subject.name
        memories[name]["overhead"] = _overhead(one, plan, times, clock, progress)
    load.append(_load())
    return {
        "schema": 1,
        "clock": clock.kind,
        "load_average": load,
        "memories": memories,
        "recomputed": _comparison(without, again, failed),
    }


def total_blocks(subjects: Sequence[Subject], plan: Plan) -> int:
    """How many blocks `measure` will make, for a progress bar; a guess where windows are long."""
    pairs = 3 * plan.pairs + 1
    each = plan.repetitions * plan.blocks + pairs * min(plan.pair_blocks, plan.blocks)
    return each * len(subjects) + (plan.repetitions + 1) * min(plan.recomputed, plan.growing)


def _prepare(subject: Subject, plan: Plan) -> _Measured:
    memory = subject.new_memory(1)
    limit, slots = memory.limit, memory.slots
    if limit is None:
        return _Measured(subject, plan.blocks, settled(subject, slots), slots, None, [])
    most = max(1, MOST_BYTES // max(1, memory.bytes()))
    count = min(plan.blocks, plan.growing, most)
    return _Measured(subject, count, 1, None, subject.timeline.latents(count), [])


def _short(one: _Measured, plan: Plan) -> int:
    return min(one.count, plan.recomputed)


def _can_recompute(one: _Measured, plan: Plan) -> bool:
    can = getattr(one.subject.network, "can_mask", None)
    frames = one.subject.timeline.latents(_short(one, plan))
    return plan.recomputed > 0 and can is not None and bool(can(frames))


def _summary(one: _Measured) -> dict[str, Any]:
    runs, subject = one.runs, one.subject
    pixels, count, rows = subject.timeline.pixels, one.count, len(subject.rng.rows)
    later = pixels(count) - pixels(1)

    def rate(seconds: Callable[[Run], list[float]]) -> dict[str, float] | None:
        return quartiles([later / sum(seconds(r)[1:]) for r in runs]) if later else None

    with_decoding = lambda r: [a + b for a, b in zip(r.blocks, r.decoding, strict=True)]  # noqa: E731
    bytes_ = _bytes(one)
    return {
        "options": dict(subject.options),
        "window_frames": one.slots,
        "block_frames": subject.blocks.frames,
        "blocks": count,
        "settled_from": min(one.settled, count),
        "block_seconds": [quartiles([run.blocks[k] for run in runs]) for k in range(count)],
        "settled_block_seconds": quartiles([s for r in runs for s in r.blocks[one.settled :]])
        if one.settled < count
        else None,
        "growth": growth([run.blocks[one.settled :] for run in runs]),
        "memory_bytes": bytes_,
        "memory_constant": len(set(bytes_)) == 1,
        "first_block_seconds": {
            "denoised": quartiles([run.setup + run.denoising[0] for run in runs]),
            "decoded": quartiles([run.setup + run.denoising[0] + run.decoding[0] for run in runs]),
        },
        "first_block_frames": pixels(1),
        "frames_per_second": {  # of each of the videos of a batch, after the first block
            "denoising": rate(lambda run: run.blocks),
            "end_to_end": rate(with_decoding),
        },
        "videos": rows,
        "peak_bytes": runs[0].peak_bytes and max(run.peak_bytes or 0 for run in runs),
    }


def _bytes(one: _Measured) -> list[int]:
    """Bytes of the memory after n blocks, n = 1, 2, ...; where it keeps everything and is made for
    the whole video, those of a memory for n blocks."""
    found = one.runs[0].memory_bytes
    if one.limit is None:
        return found
    prompt = found[-1] - one.subject.new_memory(one.count).bytes()
    return [one.subject.new_memory(n).bytes() + prompt for n in range(1, one.count + 1)]


def _overhead(
    one: _Measured, plan: Plan, times: list[float], clock: Clock, progress: Progress
) -> dict[str, Any] | None:
    if not plan.pairs:
        return None
    count = min(one.count, plan.pair_blocks)
    what = f"{one.subject.name}: overhead"
    overhead = Overhead(one.subject, count, times, clock)
    pairs = []
    for index in range(plan.pairs):
        pairs.append(overhead.pair(rollout_first=index % 2 == 0))
        progress(what, 2 * count)
    outside = []
    for _ in range(plan.pairs):
        if (shares := overhead.outside()) is None:
            break
        outside.append(shares)
        progress(what, count)
    return {
        "blocks": count,
        "rollout_seconds": quartiles([pair["rollout"] for pair in pairs]),
        "passes_seconds": quartiles([pair["passes"] for pair in pairs]),
        "share": median_interval([1 - pair["passes"] / pair["rollout"] for pair in pairs]),
        "outside": {
            name: median_interval([shares[name] for shares in outside]) for name in outside[0]
        }
        if outside
        else None,
    }


def _comparison(one: _Measured | None, again: list[Run], failed: str | None) -> Any:
    """Seconds for the first n blocks with a memory and without; the last is never remembered."""
    if one is None:
        return None
    if failed:
        return {"memory": one.subject.name, "error": failed}
    count = len(again[0].denoising)

    def total(run: Run, n: int) -> float:
        return sum(run.denoising[:n]) + sum(run.remembering[: n - 1])

    rows = []
    for n in range(1, count + 1):
        cached = [total(run, n) for run in one.runs]
        whole = [total(run, n) for run in again]
        ratios = [b / a for a, b in zip(cached, whole, strict=True)]
        rows.append(
            {
                "blocks": n,
                "frames": one.subject.timeline.latents(n),
                "cached_seconds": quartiles(cached),
                "recomputed_seconds": quartiles(whole),
                "ratio": quartiles(ratios),
            }
        )
    return {
        "memory": one.subject.name,
        "rows": rows,
        "block_seconds": [quartiles([run.blocks[k] for run in again]) for k in range(count)],
        "difference": _difference(one, again),
    }


def _difference(one: _Measured, again: list[Run]) -> float:
    """How far the last recomputed block is from the cached one, relative to it."""
    last = len(again[-1].denoising) - 1
    made, wanted = again[-1].shown[last], one.runs[-1].shown[last]
    return float((made.float() - wanted.float()).norm() / wanted.float().norm())


def _load() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):  # not on this system
        return None
