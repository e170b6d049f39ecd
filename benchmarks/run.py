"""`python -m benchmarks.run`: a controlled comparison, from a study's file to its report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study import StudyConfig, check_long, load_study, read_study, runs_of, select_arms
from salt_zoo.cli import add_plugin_option, guarded, zoo_of
from salt_zoo.config import apply_overrides
from salt_zoo.errors import ZooError
from salt_zoo.plugins import Zoo


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Compare distillation methods under control and write a report.",
    )
    parser.add_argument("study", nargs="?", default="quick", help="a YAML file, or a study's name")
    parser.add_argument("--out", type=Path, help="folder of the report (default: reports/STUDY)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N")
    parser.add_argument("--seeds", type=int, help="number of training seeds: 0, 1, ...")
    parser.add_argument("--nfe", help="numbers of steps, as in 1,2,4,8")
    parser.add_argument("--methods", help="only these arms or methods, as in dmd,sc-dmd")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=VALUE",
        dest="overrides",
        help="change a key of the study, as in base.training.updates=100",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and end")
    add_plugin_option(parser)
    options = parser.parse_args(arguments)
    return guarded(lambda: run(options, zoo_of(options)))


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    study, where = _study(options)
    out = options.out or Path("reports") / study.name
    runs = plan_runs(study, zoo, where)
    if options.dry_run:
        from benchmarks.plan import print_plan

        print_plan(study, runs, zoo, options.device)
        return 0
    from benchmarks.execute import execute

    return execute(study, runs, zoo, options.plugin, options.device, out)


def _study(options: argparse.Namespace) -> tuple[StudyConfig, str]:
    """The study of the command line, with its options applied."""
    content, path = read_study(options.study)
    content = apply_overrides(content, options.overrides)
    if options.seeds is not None:
        if options.seeds < 1:
            raise ZooError(f"--seeds {options.seeds}: must be at least 1")
        content["seeds"] = list(range(options.seeds))
    if options.nfe:
        try:
            content.setdefault("evaluation", {})["nfe"] = [int(n) for n in options.nfe.split(",")]
        except ValueError:
            raise ZooError(f"--nfe {options.nfe}: write numbers, as in 1,2,4,8") from None
    study = load_study(content, str(path))
    chosen = [name.strip() for name in (options.methods or "").split(",") if name.strip()]
    return select_arms(study, chosen, str(path)), str(path)


def plan_runs(study: StudyConfig, zoo: Zoo, where: str) -> dict[str, Any]:
    """Every arm's resolved run (at the first seed), its updates matched to the study's budget."""
    from benchmarks.budget import match_budget

    long = study.evaluation.long
    for name in [*study.evaluation.metrics, *(long.metrics or () if long else ())]:
        zoo.metrics[name]  # an unknown name is an error now, not after the training
    runs = runs_of(study, zoo, where)
    if long:
        check_long(runs, zoo, where)
    return match_budget(study, runs, zoo)


if __name__ == "__main__":
    sys.exit(main())
