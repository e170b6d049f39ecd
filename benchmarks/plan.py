"""`--dry-run`: what a study would do, how long it would take and what it would need."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.study import StudyConfig
from benchmarks.workers import count_workers
from salt_zoo.errors import ZooError
from salt_zoo.planning import Plan, plan_run
from salt_zoo.plugins import Zoo
from salt_zoo.run import Resolved

#: Networks up to this size are timed on the device itself.
TIMED_PARAMETERS = 100_000_000

#: For larger ones, where no such device is at hand: an H100's dense bf16 peak and the share of it
#: that large transformers usually reach in training.
ASSUMED_PEAK, ASSUMED_SHARE = 989e12, 0.4


def print_plan(study: StudyConfig, runs: Mapping[str, Resolved], zoo: Zoo, device: str) -> None:
    """Print arms, updates, passes, memory and time. Loads no published weights."""
    console = Console(width=120)
    plans = {label: plan_run(run, zoo) for label, run in runs.items()}
    rate, basis = _rate(next(iter(runs.values())), zoo, device, next(iter(plans.values())))
    console.print(f"{study.name}: {study.title}", highlight=False, markup=False)
    evaluation = study.evaluation
    console.print(
        f"{len(runs)} arms x {len(study.seeds)} seeds, matched in {study.match}; "
        f"evaluation: {evaluation.prompts} prompts x {evaluation.videos_per_prompt}, "
        f"NFE {', '.join(map(str, evaluation.nfe))}, {' and '.join(evaluation.samplers)}",
        highlight=False,
    )
    if long := evaluation.long:
        console.print(
            f"long videos: {long.prompts} prompts x {long.videos_per_prompt}, up to "
            f"{max(long.lengths)} times the training's length, "
            f"NFE {', '.join(map(str, long.nfe))}, {long.sampler}",
            highlight=False,
        )
    table = Table(
        "arm",
        "method",
        "updates",
        "passes per update (forward + backward, videos)",
        "PFLOP",
        "hours",
        "GiB",
    )
    hours = 0.0
    for label, run in runs.items():
        plan, updates = plans[label], run.config.training.updates
        passes = "; ".join(
            f"{role} {count['forward']:.0f}"
            + (f" + {count['backward']:.0f}" if count["backward"] else "")
            for role, count in plan.passes.items()
            if count["forward"]
        )
        took = updates * plan.flops / rate / 3600
        hours += took * len(study.seeds)
        table.add_row(
            label,
            str(run.config.method["name"]),
            str(updates),
            passes,
            f"{updates * plan.flops / 1e15:.3g}",
            f"{took:.2g}",
            f"{plan.peak:.2f}",
        )
    console.print(table)
    workers = count_workers(study.workers, device, len(runs) * len(study.seeds))
    console.print(
        f"training in all: {hours:.2g} hours, {hours / workers:.2g} with {workers} at a time "
        f"({basis}); evaluation comes on top",
        highlight=False,
    )
    _print_memory(console, plans)
    _print_downloads(console, plans)


def _print_memory(console: Console, plans: Mapping[str, Plan]) -> None:
    label, plan = max(plans.items(), key=lambda item: item[1].peak)
    table = Table("part", "GiB", title=f"memory of one device, {label} (the largest)")
    for part, gib in plan.memory.items():
        table.add_row(part, f"{gib:.3f}")
    table.add_row("at the fullest moment", f"{plan.peak:.3f}")
    console.print(table)


def _print_downloads(console: Console, plans: Mapping[str, Plan]) -> None:
    seen: set[str] = set()
    for plan in plans.values():
        for item in plan.downloads:
            if item["command"] not in seen:
                seen.add(item["command"])
                console.print(
                    f"to be downloaded: {item['source']} ({item['bytes'] / 1e9:.1f} GB): "
                    f"{item['command']}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
    if not seen:
        console.print("nothing has to be downloaded")


def _rate(run: Resolved, zoo: Zoo, device: str, plan: Plan) -> tuple[float, str]:
    """FLOP a second of one training process, and what that figure rests on."""
    from salt_zoo.devices import find_device

    if max(plan.parameters.values()) > TIMED_PARAMETERS:
        share = f"{ASSUMED_SHARE:.0%} of an H100's {ASSUMED_PEAK / 1e12:.0f} TFLOP/s"
        return ASSUMED_PEAK * ASSUMED_SHARE, f"assuming {share}"
    place = find_device(device)
    backbone = zoo.backbones.create(run.config.backbone["name"], run.backbone, zoo).to(place)
    try:
        network = backbone.network("teacher")
    except ZooError:
        network = backbone.network("random")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker has
    batch = min(plan.micro_batch, 16)
    x = torch.zeros(batch, *backbone.latent_shape, device=place)
    t = torch.full((batch,), 0.5, device=place)
    condition = backbone.encode_prompts([""] * batch)
    from salt_zoo.training.costs import Pass
    from salt_zoo.training.flops import flops_of_pass

    one = flops_of_pass(backbone, "teacher", Pass(backbone.latent_shape[1], weights=True))
    seconds: list[float] = []
    for _ in range(4):  # the first is a warm-up
        begin = time.perf_counter()
        network(x, t, condition).sum().backward()
        if place.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    torch.set_num_threads(threads)
    return batch * sum(one) / min(seconds[1:]), "timed on this machine"
