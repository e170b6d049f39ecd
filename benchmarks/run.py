"""`python -m benchmarks.run`: a controlled comparison, from a study's file to its report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.answer import check_primary
from benchmarks.broken_metrics import without_broken
from benchmarks.metric_info import MetricInfo
from benchmarks.outcomes import check_outcomes, measured_outcomes
from benchmarks.study import (
    StudyConfig,
    check_long,
    load_study,
    read_study,
    runs_of,
    select_arms,
    with_outcomes,
)
from salt_zoo.cli import add_plugin_option, guarded, with_plugins
from salt_zoo.cli.processes import end_process
from salt_zoo.config import apply_overrides
from salt_zoo.errors import ZooError
from salt_zoo.metrics import make_metric
from salt_zoo.plugins import Zoo
from salt_zoo.run import configure_metrics


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
    code = guarded(lambda: with_plugins(run, options))
    return code if arguments is not None else end_process(code)


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    study, where, dropped = _study(options, zoo)
    study, broken = without_broken(study, zoo, where)
    out = options.out or Path("reports") / study.name
    runs = plan_runs(study, zoo, where)
    if dropped:
        print(
            f"{dropped} of the study's outcomes are left out: with these options they are not "
            "measured",
            file=sys.stderr,
        )
    if options.dry_run:
        from benchmarks.plan import print_plan

        print_plan(study, runs, zoo, options.device)
        return 0
    from benchmarks.execute import execute

    return execute(study, runs, zoo, options.plugin, options.device, out, broken)


def _study(options: argparse.Namespace, zoo: Zoo) -> tuple[StudyConfig, str, int]:
    """The study of the command line, with its options applied, and how many outcomes they cost."""
    written, path = read_study(options.study)
    where = str(path)
    content = apply_overrides(written, options.overrides)
    if options.seeds is not None:
        if options.seeds < 1:
            raise ZooError(f"--seeds {options.seeds}: must be at least 1")
        content["seeds"] = list(range(options.seeds))
        for arm in content.get("arms", {}).values():
            if isinstance(arm, dict) and isinstance(arm.get("seeds"), list):
                arm["seeds"] = arm["seeds"][: options.seeds]
    if options.nfe:
        try:
            content.setdefault("evaluation", {})["nfe"] = [int(n) for n in options.nfe.split(",")]
        except ValueError:
            raise ZooError(f"--nfe {options.nfe}: write numbers, as in 1,2,4,8") from None
    study = load_study(content, where)
    if content != written and content.get("primary_metric") == written.get("primary_metric"):
        # an option that measures less asks less, of the first table, too
        labels = configure_metrics(zoo, study.evaluation.metrics, f"{where}: evaluation.metrics")
        if study.primary_metric not in labels:
            study = study.model_copy(update={"primary_metric": None})
    check_metrics(study, zoo, where)
    kept = list(range(len(study.primary)))
    if content.get("primary") == written.get("primary") and content != written:
        # an option that measures less asks less; the file itself must be able to answer all it asks
        whole = load_study(written, where)
        check_metrics(whole, zoo, where)
        check_outcomes(whole, zoo, where)
        kept = measured_outcomes(study, zoo)
    dropped = len(study.primary) - len(kept)
    study = with_outcomes(study, kept)
    check_outcomes(study, zoo, where)
    chosen = [name.strip() for name in (options.methods or "").split(",") if name.strip()]
    return select_arms(study, chosen, where), where, dropped


def check_metrics(study: StudyConfig, zoo: Zoo, where: str) -> None:
    """An unknown metric, or option of one, is an error now and not after the training."""
    known = configure_metrics(zoo, study.evaluation.metrics, f"{where}: evaluation.metrics")

    def made(label: str) -> MetricInfo:
        metric, options = known[label]
        return MetricInfo.of(label, make_metric(metric.name, options, zoo), "")

    if study.primary_metric is not None:
        check_primary(study.primary_metric, known, made, where)
    if study.evaluation.long:
        metrics = study.evaluation.long.metrics or []
        configure_metrics(zoo, metrics, f"{where}: evaluation.long.metrics")


def plan_runs(study: StudyConfig, zoo: Zoo, where: str) -> dict[str, Any]:
    """Every arm's resolved run (at the first seed), its updates matched to the study's budget."""
    from benchmarks.budget import match_budget

    check_metrics(study, zoo, where)
    runs = runs_of(study, zoo, where)
    if study.evaluation.long:
        check_long(runs, zoo, where)
    return match_budget(study, runs, zoo)


if __name__ == "__main__":
    sys.exit(main())
