"""`--dry-run`: what a study would do, how long it would take and what it would need."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.runner.planning.evaluation_plan import evaluation_flops
from benchmarks.runner.workers.pool import count_workers
from benchmarks.study.schema import StudyConfig
from salt_zoo.cli.plan import MFU, TFLOPS
from salt_zoo.config.run import Resolved
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.condition import example
from salt_zoo.io.consoles import ResultsConsole
from salt_zoo.io.durations import in_words
from salt_zoo.io.printing import noted_if_slow, say_once, visible
from salt_zoo.planning.plan import Plan, plan_run
from salt_zoo.plugin.isolation.foreign import ForeignError, show_traceback
from salt_zoo.plugin.manager import Zoo
from salt_zoo.training.devices import find_device

#: Networks up to this size are timed on the device itself.
TIMED_PARAMETERS = 100_000_000

#: Until a process has imported torch, diffusers and the plugins.
START_SECONDS = 10.0


def print_plan(
    study: StudyConfig,
    runs: Mapping[str, Resolved],
    zoo: Zoo,
    device: str,
    tflops: float = TFLOPS,
    mfu: float = MFU,
) -> bool:
    """Print arms, updates, passes, memory and time; an arm whose code fails is a line on stderr.
    Loads no published weights.

    Args:
        tflops, mfu: of networks too large to be timed here: peak TFLOP/s of a GPU and the share of
            it that is reached.

    Returns:
        Whether all arms are in it.

    Raises:
        ForeignError: none is.
    """
    console = ResultsConsole(width=120)
    with noted_if_slow(f"planning {len(runs)} arms by dry runs of up to 400 updates"):
        plans = _plans(runs, zoo)
    every, runs = len(runs), {label: runs[label] for label in plans}
    timed = all(max(plan.parameters.values()) <= TIMED_PARAMETERS for plan in plans.values())
    if timed:
        rate, basis = _rate(next(iter(runs.values())), zoo, device, next(iter(plans.values())))
    else:
        rate = tflops * 1e12 * mfu
        basis = f"on one GPU (assuming {mfu:.0%} of {tflops:g} TFLOP/s: --mfu, --tflops)"
    arms, baselines = evaluation_flops(study, runs, zoo)
    console.print(visible(f"{study.name}: {study.title}"), highlight=False, markup=False)
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
        "training",
        "measuring",
        "GiB",
    )
    training = measuring = 0.0
    for label, run in runs.items():
        plan, updates, seeds = plans[label], run.config.training.updates, study.seeds_of(label)
        passes = "; ".join(
            f"{role} {count['forward']:.0f}"
            + (f" + {count['backward']:.0f}" if count["backward"] else "")
            for role, count in plan.passes.items()
            if count["forward"]
        )
        petaflops = updates * plan.flops / 1e15
        trains, measures = updates * plan.flops / rate, arms[label] / rate
        training += trains * len(seeds)
        measuring += measures * len(seeds)
        table.add_row(
            Text(label),
            str(run.config.method["name"]),
            str(updates),
            passes,
            f"{petaflops:,.0f}" if petaflops >= 100 else f"{petaflops:.3g}",
            in_words(trains),
            in_words(measures),
            f"{plan.peak:.2f}",
        )
    for name, flops in baselines.items():
        measuring += flops / rate
        table.add_row(name, "", "", "", "", "", in_words(flops / rate), "")
    console.print(table)
    jobs = len(baselines) + sum(len(study.seeds_of(label)) for label in runs)
    at_once, places = _at_once(study, device, jobs, timed)
    starting = at_once * START_SECONDS
    whole = training + measuring + starting
    console.print(
        f"in all about {in_words(whole)} {basis}: training {in_words(training)}, "
        f"measuring {in_words(measuring)} ({measuring / whole:.0%}), "
        f"starting {at_once} process{'es' if at_once > 1 else ''} {in_words(starting)}"
        + (f"; {in_words(whole / at_once)} with {at_once} {places}" if at_once > 1 else "")
        + ". Measuring is counted in passes: decoding and the networks of metrics come on top.",
        highlight=False,
        soft_wrap=True,
    )
    _print_memory(console, plans)
    _print_downloads(console, plans)
    return len(plans) == every


def _plans(runs: Mapping[str, Resolved], zoo: Zoo) -> dict[str, Plan]:
    plans: dict[str, Plan] = {}
    last: ForeignError | None = None
    for label, run in runs.items():
        try:
            plans[label] = plan_run(run, zoo)
        except ForeignError as error:
            show_traceback(error)
            say_once(f"arm {label!r} cannot be planned: {error}")
            last = error
    if last is not None and not plans:
        raise last
    return plans


def _print_memory(console: Console, plans: Mapping[str, Plan]) -> None:
    label, plan = max(plans.items(), key=lambda item: item[1].peak)
    table = Table("part", "GiB", title=Text(f"memory of one device, {label} (the largest)"))
    for part, gib in plan.memory.items():
        count = plan.parameters.get(part.removeprefix("weights "), 0)
        table.add_row(f"{part} ({_parameters(count)})" if count else part, f"{gib:.3f}")
    table.add_row("at the fullest moment", f"{plan.peak:.3f}")
    console.print(table)


def _parameters(count: int) -> str:
    return f"{count / 1e9:.3g} B" if count >= 1e9 else f"{count / 1e6:.3g} M"


def _print_downloads(console: Console, plans: Mapping[str, Plan]) -> None:
    seen: set[str] = set()
    for plan in plans.values():
        for item in plan.downloads:
            if item["command"] not in seen:
                seen.add(item["command"])
                console.print(
                    visible(
                        f"to download: {item['source']} ({item['bytes'] / 1e9:.1f} GB): "
                        f"{item['command']}"
                    ),
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
    if not seen:
        console.print("nothing to download")


def _at_once(study: StudyConfig, device: str, jobs: int, timed: bool) -> tuple[int, str]:
    """How many jobs share the time, and what they are: the processes of this machine for what was
    timed on it, its GPUs (or one) for what needs them."""
    if timed:
        return count_workers(study.workers, str(find_device(device)), jobs), "at a time"
    return max(1, min(torch.cuda.device_count(), jobs)), "GPUs"


def _rate(run: Resolved, zoo: Zoo, device: str, plan: Plan) -> tuple[float, str]:
    """FLOP a second of one training process, and what that figure rests on."""
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
    condition = example(backbone, [""] * batch)
    from salt_zoo.costs.counter import Pass
    from salt_zoo.costs.flops import flops_of_pass

    one = flops_of_pass(backbone, "teacher", Pass(backbone.latent_shape[1], weights=True))
    seconds: list[float] = []
    for _ in range(4):  # the first is a warm-up
        begin = time.perf_counter()
        network(x, t, condition).sum().backward()
        if place.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    torch.set_num_threads(threads)
    return batch * sum(one) / min(seconds[1:]), "of one process (timed on this machine)"
