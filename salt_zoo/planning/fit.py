"""The first way of carrying out runs that fits the memory of given GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from salt_zoo.config.execution import ExecutionConfig, Offload
from salt_zoo.config.run import Resolved
from salt_zoo.config.training import OptimizerConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.planning.plan import PASSING, Plan, can_offload, plan_run
from salt_zoo.plugin.manager import Zoo

#: GiB that CUDA itself, its libraries and fragmentation take of a card.
RESERVED = 2.0
#: GPUs of one machine.
NODE = 8
#: Kinds of networks that are moved to main memory one after the other, in words.
OFFLOADED: dict[Offload, str] = {"frozen": "frozen networks", "averages": "averages, too,"}
#: GPUs up to which more of them are tried where those given do not do.
MOST_GPUS = 512


@dataclass(frozen=True)
class Setting:
    """One way of carrying out runs, and what it takes.

    Attributes:
        what: the switch that was tried, for people.
        execution: as a run would have it.
        changes: the keys of `execution` that are not what the configuration has.
        plans: by the label of the run.
    """

    what: str
    execution: ExecutionConfig
    changes: Mapping[str, Any]
    plans: Mapping[str, Plan]

    @property
    def largest(self) -> str:
        """The run that takes most memory."""
        return max(self.plans, key=lambda label: self.plans[label].peak)

    @property
    def peak(self) -> float:
        """GiB on a GPU at the fullest moment of any run."""
        return self.plans[self.largest].peak


@dataclass(frozen=True)
class Fit:
    """The settings that were tried on `gpus`, in order; the last one fits, if any does.

    Attributes:
        room: GiB of a GPU without what is reserved.
        more: where none fits, the first number of GPUs on which the last setting would, sharded
            over all of them.
        eight_bit: where none fits, GiB that `adamw8bit` for every role would save of `least`.
    """

    gpus: int
    room: float
    tried: tuple[Setting, ...]
    more: int | None = None
    eight_bit: float = 0.0

    @property
    def found(self) -> Setting | None:
        return self.tried[-1] if self.tried[-1].peak <= self.room else None

    @property
    def least(self) -> Setting:
        """The setting that takes least."""
        return min(self.tried, key=lambda setting: setting.peak)

    def help(self) -> list[str]:
        """What would help where nothing fits, each with its number."""
        plan = self.least.plans[self.least.largest]
        lines = []
        if self.more:
            lines.append(f"{self.more} GPUs, over all of which the networks are sharded")
        if self.eight_bit > 0:
            roles = ", ".join(plan.states)
            lines.append(
                f"training.optimizers: adamw8bit for {roles} saves {self.eight_bit:.1f} GiB; it is "
                "another run"
            )
        average = plan.memory.get("weights student_ema")
        if average:
            lines.append(f"training.ema: null saves {average:.1f} GiB")
        passing = sum(plan.memory.get(part, 0.0) for part in PASSING)
        lines.append(
            f"smaller videos (height, width or frames): activations and gathered weights are "
            f"{passing:.1f} GiB of {plan.peak:.1f}"
        )
        return lines


def find_fit(
    runs: Mapping[str, Resolved], zoo: Zoo, gpus: int, memory: float, node: int = NODE
) -> Fit:
    """Try the switches of `execution` in order: as written, gradient checkpointing, micro-batches
    of one video, weights sharded over more and more GPUs, offloaded, videos shared by more and more
    GPUs.

    Args:
        runs: by label; all must fit under one setting.
        gpus: over which each run is split.
        memory: GiB of each.
        node: GPUs of one machine, over which `shard: auto` shards.

    Raises:
        ZooError: the batch cannot be split over so many GPUs.
    """
    room, tried = memory - RESERVED, []
    written = next(iter(runs.values())).config.execution
    kinds: list[Offload] = [
        kind for kind in OFFLOADED if all(can_offload(run, zoo, kind) for run in runs.values())
    ]
    for what, execution in _settings(written, gpus, min(node, gpus), kinds):
        try:
            tried.append(_setting(what, execution, runs, zoo, gpus, node))
        except ZooError:
            if execution.sequence == written.sequence:
                raise
            continue  # heads, tokens or a memory that so many cannot share
        if tried[-1].peak <= room:
            return Fit(gpus, room, tuple(tried))
    more = _more(tried[-1].execution, runs, zoo, gpus, room, node)
    fit = Fit(gpus, room, tuple(tried), more)
    return replace(fit, eight_bit=_eight_bit_saves(fit.least, runs, zoo, gpus, min(node, gpus)))


def _settings(
    written: ExecutionConfig, gpus: int, node: int, kinds: Sequence[Offload]
) -> Iterator[tuple[str, ExecutionConfig]]:
    now = written
    yield "as written", now
    if not now.gradient_checkpointing:
        now = now.model_copy(update={"gradient_checkpointing": True})
        yield "gradient checkpointing", now
    if now.micro_batch != 1:
        now = now.model_copy(update={"micro_batch": 1})
        yield "micro-batches of 1", now
    first = node if now.shard == "auto" and gpus % node == 0 else now.shard
    before = 1 if first == "auto" else first
    for shard in range(before + 1, gpus + 1):
        if gpus % shard == 0 and (shard % before == 0):
            now = now.model_copy(update={"shard": shard})
            yield f"sharded over {shard} GPUs", now
    for kind in kinds:
        if kind not in now.offload:
            now = now.model_copy(update={"offload": [*now.offload, kind]})
            yield f"{OFFLOADED[kind]} in main memory", now
    # last: it costs transfers in every layer, and each video takes more GPUs
    for sequence in range(now.sequence + 1, gpus + 1):
        if gpus % sequence == 0 and sequence % now.sequence == 0:
            yield (
                f"sequence parallelism over {sequence} GPUs",
                now.model_copy(update={"sequence": sequence}),
            )


def _setting(
    what: str,
    execution: ExecutionConfig,
    runs: Mapping[str, Resolved],
    zoo: Zoo,
    gpus: int,
    node: int,
) -> Setting:
    written = next(iter(runs.values())).config.execution.model_dump()
    changes = {key: value for key, value in execution.model_dump().items() if value != written[key]}
    if execution.shard == "auto" and gpus > 1:
        changes["shard"] = min(node, gpus) if gpus % min(node, gpus) == 0 else 1
    plans = {
        label: plan_run(_with(run, execution), zoo, "cuda", gpus, min(node, gpus))
        for label, run in runs.items()
    }
    return Setting(what, execution, changes, plans)


def _more(
    execution: ExecutionConfig,
    runs: Mapping[str, Resolved],
    zoo: Zoo,
    gpus: int,
    room: float,
    node: int,
) -> int | None:
    batches = [run.config.training.batch_size for run in runs.values()]
    while (gpus := 2 * gpus) <= MOST_GPUS:
        if any(batch % (gpus // execution.sequence) for batch in batches):
            return None
        sharded = execution.model_copy(update={"shard": gpus})
        if _setting("", sharded, runs, zoo, gpus, node).peak <= room:
            return gpus
    return None


def _eight_bit_saves(
    setting: Setting, runs: Mapping[str, Resolved], zoo: Zoo, gpus: int, node: int
) -> float:
    run, plan = runs[setting.largest], setting.plans[setting.largest]
    training = run.config.training
    optimizers = dict(training.optimizers)
    for role in plan.states:
        given = optimizers.get(role, OptimizerConfig())
        optimizers[role] = given.model_copy(update={"name": "adamw8bit"})
    training = training.model_copy(update={"optimizers": optimizers})
    there = replace(run, config=run.config.model_copy(update={"training": training}))
    lean = plan_run(_with(there, setting.execution), zoo, "cuda", gpus, node)
    return sum(plan.states.values()) - sum(lean.states.values())


def _with(run: Resolved, execution: ExecutionConfig) -> Resolved:
    return replace(run, config=run.config.model_copy(update={"execution": execution}))
