"""`--dry-run` with `--gpus` and `--memory`: what a run takes, and the first setting that fits."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.durations import in_words
from salt_zoo.io.printing import noted_if_slow, show
from salt_zoo.plugin.manager import Zoo

if TYPE_CHECKING:
    from salt_zoo.config.run import Resolved
    from salt_zoo.planning.fit import Fit, Setting
    from salt_zoo.planning.plan import Plan

#: Dense bf16 TFLOP/s of an H100, and the share of it that large transformers usually reach in
#: training: what `--tflops` and `--mfu` assume.
TFLOPS, MFU = 989.0, 0.4


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """`--dry-run` and what a plan assumes."""
    parser.add_argument("--dry-run", action="store_true", help="print the plan and exit")
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="with --dry-run: plan for N GPUs and --memory"
    )
    parser.add_argument(
        "--memory", type=float, metavar="GIB", help="with --dry-run: memory of a GPU (default: 80)"
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=TFLOPS,
        help=f"with --dry-run: peak TFLOP/s of a GPU (default: {TFLOPS:g}, an H100 in dense bf16)",
    )
    parser.add_argument(
        "--mfu",
        type=float,
        default=MFU,
        help=f"with --dry-run: the share of the peak that is reached (default: {MFU:g})",
    )


def given_again(options: argparse.Namespace) -> list[str]:
    """The plugins and overrides of a command line, for the command that a plan prints."""
    plugins = [word for plugin in options.plugin for word in ("-p", plugin)]
    return [*plugins, *(word for one in options.overrides for word in ("--set", one))]


def check_plan_options(options: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing, and options of a plan without one."""
    from salt_zoo.planning.fit import MOST_GPUS, RESERVED

    for name in ("gpus", "memory"):
        if getattr(options, name) is not None and not options.dry_run:
            raise ZooError(f"--{name}: is for --dry-run; add that, or omit it")
    if options.gpus is not None and not 1 <= options.gpus <= MOST_GPUS:
        raise ZooError(f"--gpus {options.gpus}: must be from 1 to {MOST_GPUS}")
    if options.memory is not None and not RESERVED < options.memory <= 10**4:
        raise ZooError(f"--memory {options.memory:g}: must be GiB, more than {RESERVED:g}")
    if not 0 < options.mfu <= 1:
        raise ZooError(f"--mfu {options.mfu:g}: must be a share of the peak, above 0 and at most 1")
    if not 0 < options.tflops <= 10**6:
        raise ZooError(f"--tflops {options.tflops:g}: must be a number of TFLOP/s above 0")


def print_fit(
    runs: Mapping[str, Resolved],
    zoo: Zoo,
    options: argparse.Namespace,
    command: Sequence[str],
    prefix: str = "",
) -> None:
    """Print the first setting that fits, with its command, hours and memory.

    Args:
        runs: by label.
        command: the module that trains and its arguments, without the settings.
        prefix: of the key `execution` in the file, such as `base.`.
    """
    from salt_zoo.planning.fit import RESERVED, find_fit

    gpus, memory = options.gpus or 1, options.memory or 80.0
    with noted_if_slow("planning: dry runs of up to 400 updates of each run"):
        fit = find_fit(runs, zoo, gpus, memory)
    of = f"{gpus} GPU{'s' if gpus > 1 else ''} of {memory:g} GiB ({RESERVED:g} kept free)"
    for setting in fit.tried:
        verdict = "fits" if setting.peak <= fit.room else "does not fit"
        show(f"{setting.what}: {setting.peak:.1f} GiB, {verdict} {of}")
    if fit.found is None:
        show(f"nothing fits: {fit.least.peak - fit.room:.1f} GiB are missing. What would help:")
        for line in fit.help():
            show(f"  {line}")
    else:
        show(command_line(fit, fit.found, command, prefix))
    best = fit.found or fit.least
    seconds = sum(
        runs[label].config.training.updates * plan.flops for label, plan in best.plans.items()
    ) / (gpus * options.tflops * 1e12 * options.mfu)
    show(
        f"about {in_words(seconds)} of training on {gpus} GPU{'s' if gpus > 1 else ''}, assuming "
        f"{options.mfu:.0%} of {options.tflops:g} TFLOP/s of each (--mfu, --tflops)"
    )
    label, plan = best.largest, best.plans[best.largest]
    show(f"memory of one GPU{f', {label} (the largest)' if len(runs) > 1 else ''}:")
    for line in memory_rows(plan):
        show("  " + line)
    if plan.host:
        show(f"main memory in training: {plan.host:.1f} GiB a process, for offloaded weights")
    if plan.loading:
        show(f"main memory while loading: up to {plan.loading:.1f} GiB a process")


def command_line(fit: Fit, setting: Setting, command: Sequence[str], prefix: str = "") -> str:
    """The command that trains under a setting."""
    from salt_zoo.planning.fit import NODE

    changes = [f"{prefix}execution.{key}={_yaml(value)}" for key, value in setting.changes.items()]
    sets = [word for change in changes for word in ("--set", change)]
    if fit.gpus == 1:
        return shlex.join(["python", "-m", *command, *sets])
    nodes, each = -(-fit.gpus // NODE), min(fit.gpus, NODE)
    start = ["torchrun", "--nproc_per_node", str(each)]
    if nodes > 1:  # once on each node
        start += ["--nnodes", str(nodes), "--rdzv_backend", "c10d", "--rdzv_endpoint", "HOST:29500"]
    return shlex.join([*start, "-m", *command, *sets])


def memory_rows(plan: Plan) -> list[str]:
    """The parts of a plan's memory as lines; optimizer states by role."""
    rows = []
    for part, gib in plan.memory.items():
        if part == "optimizer states":
            rows += [(f"{part} {role}", states) for role, states in plan.states.items()]
        else:
            rows.append((part, gib))
    rows.append(("at the fullest moment", plan.peak))
    width = max(len(part) for part, _ in rows)
    return [f"{part:{width}} {gib:8.2f} GiB" for part, gib in rows]


def _yaml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
