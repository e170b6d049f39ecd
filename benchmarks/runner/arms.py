"""The study of a command line, and the runs of its arms, checked before anything is made."""

from __future__ import annotations

import argparse

from benchmarks.stats.answer import check_primary
from benchmarks.study.hypotheses import check_hypotheses, measured_hypotheses
from benchmarks.study.metric_info import MetricInfo
from benchmarks.study.schema import (
    StudyConfig,
    check_baselines,
    check_long,
    load_study,
    read_study,
    runs_of,
    select_arms,
    with_hypotheses,
)
from benchmarks.study.types import types_of_study
from salt_zoo.cli.arguments import integer
from salt_zoo.config.metrics import configure_metrics
from salt_zoo.config.overrides import apply_overrides
from salt_zoo.config.run import Resolved
from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.planning.check import check_training
from salt_zoo.plugin.isolation.checked_metric import make_metric
from salt_zoo.plugin.manager import Zoo

#: More than anybody trains; a typo would fill the memory with them.
MOST_SEEDS = 10_000


def study_of(options: argparse.Namespace, zoo: Zoo) -> tuple[StudyConfig, str, int]:
    """The study of the command line with its options applied, and how many hypotheses they
    drop."""
    written, path = read_study(options.study)
    where = str(path)
    content = apply_overrides(written, options.overrides, types_of_study(zoo))
    if options.seeds is not None:
        if not 1 <= options.seeds <= MOST_SEEDS:
            raise ZooError(f"--seeds {options.seeds}: must be from 1 to {MOST_SEEDS}")
        content["seeds"] = list(range(options.seeds))
        arms = content.get("arms")
        for arm in arms.values() if isinstance(arms, dict) else ():
            if isinstance(arm, dict) and isinstance(arm.get("seeds"), list):
                arm["seeds"] = arm["seeds"][: options.seeds]
    if options.nfe is not None:
        try:
            evaluation = content.setdefault("evaluation", {})
            evaluation["nfe"] = [integer(n.strip()) for n in options.nfe.split(",")]
        except (TypeError, ValueError, argparse.ArgumentTypeError):
            raise ZooError(f"--nfe {shown(options.nfe)}: write numbers, as in 1,2,4,8") from None
    study = load_study(content, where)
    if content != written and content.get("primary_metric") == written.get("primary_metric"):
        # an option that measures less asks less, of the first table, too
        labels = configure_metrics(zoo, study.evaluation.metrics, f"{where}: evaluation.metrics")
        if study.primary_metric not in labels:
            study = study.model_copy(update={"primary_metric": None})
    check_metrics(study, zoo, where)
    kept = list(range(len(study.hypotheses)))
    if content.get("hypotheses") == written.get("hypotheses") and content != written:
        # an option that measures less asks less; the file itself must be able to answer all it asks
        whole = load_study(written, where)
        check_metrics(whole, zoo, where)
        check_hypotheses(whole, zoo, where)
        kept = measured_hypotheses(study, zoo)
    dropped = len(study.hypotheses) - len(kept)
    study = with_hypotheses(study, kept)
    check_hypotheses(study, zoo, where)
    chosen = [name.strip() for name in (options.methods or "").split(",") if name.strip()]
    if options.methods is not None and not chosen:
        raise ZooError("--methods: names no arm; omit it to run all arms")
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


def plan_runs(
    study: StudyConfig, zoo: Zoo, where: str
) -> tuple[dict[str, Resolved], dict[str, str]]:
    """Every arm's resolved run (at the first seed), its updates matched to the study's budget, and
    by label why others cannot be run: their code fails.

    Raises:
        ForeignError: no arm can be run, or the one whose cost all arms get has none.
    """
    from benchmarks.runner.broken_arms import without_broken_arms
    from benchmarks.runner.budget import match_budget

    check_metrics(study, zoo, where)
    runs = runs_of(study, zoo, where)
    if study.evaluation.long:
        check_long(runs, zoo, where)
    check_baselines(study, runs, zoo, where)
    for label, run in runs.items():
        check_training(run, zoo, f"{where}: arms.{label}")
    runs, broken = without_broken_arms(runs, zoo)
    matched, without_cost = match_budget(study, runs, zoo)
    return matched, {**broken, **without_cost}
