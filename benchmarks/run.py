"""`python -m benchmarks.run`: a controlled comparison, from a study's file to its report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from salt_zoo.cli import add_plugin_option, guarded, interruptible, with_plugins
from salt_zoo.cli.arguments import Parser, add_set_option, folder
from salt_zoo.cli.plan import add_plan_options, check_plan_options, given_again, print_fit
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.ranks import end_process
from salt_zoo.io.files.storage import check_folder
from salt_zoo.io.printing import noted_if_slow, say
from salt_zoo.plugin.manager import Zoo


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m benchmarks.run",
        description="Run a controlled comparison of distillation methods and write a report.",
    )
    parser.add_argument(
        "study", nargs="?", default="quick", help="YAML file or name of a study (default: quick)"
    )
    parser.add_argument("--out", type=folder, help="report folder (default: reports/STUDY)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N")
    parser.add_argument("--seeds", type=int, help="number of training seeds (0, 1, ...)")
    parser.add_argument("--nfe", help="numbers of steps, e.g. 1,2,4,8")
    parser.add_argument("--methods", help="run only these arms or methods, e.g. dmd,sc-dmd")
    add_set_option(parser, "base.training.updates=100")
    add_plan_options(parser)
    add_plugin_option(parser)
    options = parser.parse_args(arguments)
    code = guarded(lambda: with_plugins(run, options))
    return code if arguments is not None else end_process(code)


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    # all of these import torch, which takes seconds: Ctrl-C is listened to already
    from benchmarks.evaluate.broken_metrics import without_broken
    from benchmarks.runner.arms import plan_runs, study_of
    from salt_zoo.planning.check import check_data
    from salt_zoo.training.devices import check_device, find_device

    check_plan_options(options)
    check_device(options.device)
    study, where, dropped = study_of(options, zoo)
    study, broken = without_broken(study, zoo, where)
    out = options.out or Path("reports") / study.name
    if not options.dry_run:  # before budgets are matched, which takes a while
        find_device(options.device)
        check_folder(out)
    matching = " and matching their budgets" if study.match == "compute" else ""
    with noted_if_slow(f"checking {len(study.arms)} arms{matching} by dry runs"):
        runs, broken_arms = plan_runs(study, zoo, where)
    if dropped:
        say(
            f"{dropped} of the study's hypotheses are left out: with these options they are not "
            "measured"
        )
    for label, arm in runs.items():
        try:
            check_data(arm, zoo, f"{where}: arms.{label}", study.evaluation.split)
        except ZooError as error:
            if not options.dry_run:
                raise
            say(f"warning: the plan is valid, but the run would be rejected: {error}")
    if options.dry_run:
        if options.gpus or options.memory:
            command = ["benchmarks.run", options.study]
            command += ["--methods", options.methods] if options.methods else []
            print_fit(runs, zoo, options, [*command, *given_again(options)], "base.")
            return 0
        from benchmarks.runner.planning.plan import print_plan

        whole = print_plan(study, runs, zoo, options.device, options.tflops, options.mfu)
        return 0 if whole and not broken_arms else 1
    from benchmarks.runner.runner import execute

    return execute(study, runs, zoo, options.plugin, options.device, out, broken, broken_arms)


if __name__ == "__main__":
    sys.exit(main())
