"""Run a study's plan: do or reuse every piece, then write results and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evaluate.broken_metrics import guarded_infos, of_one_form, together
from benchmarks.evaluate.cells import plan_cells, plan_metrics
from benchmarks.evaluate.records import EvalResult, TrainingCost
from benchmarks.report.model.model import View
from benchmarks.runner.jobs.execution import set_right
from benchmarks.runner.jobs.job import Job, Origin
from benchmarks.runner.jobs.record import training_of
from benchmarks.runner.jobs.results import read_job, stamps_of
from benchmarks.runner.workers.pool import run_jobs
from benchmarks.runner.workers.progress import study_progress
from benchmarks.runner.workers.ranks import run_jobs_together
from benchmarks.stats.intervals.arm_scores import Store
from benchmarks.stats.model.schema import Results
from benchmarks.study.entries.baselines import BASELINES
from benchmarks.study.hypotheses import with_own_samplers
from benchmarks.study.metric_info import metric_infos
from benchmarks.study.schema import StudyConfig
from benchmarks.study.stated import Stated, record_end, record_start, when_stated
from salt_zoo.cli.progress import told_bar
from salt_zoo.config.metrics import chosen, make_metrics
from salt_zoo.config.run import Resolved
from salt_zoo.core.base.ranks import is_alone
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.io.distributed import on_main
from salt_zoo.io.files.one_writer import one_writer
from salt_zoo.io.files.storage import plain, prepare_folder
from salt_zoo.io.printing import say, say_once, show
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.versions import Versions
from salt_zoo.training.data.origin import make_parts

#: Rows that are not finite, of which the terminal is told each: all arms may have them.
MOST_TOLD = 4


def execute(
    study: StudyConfig,
    runs: Mapping[str, Resolved],
    zoo: Zoo,
    plugins: Sequence[str],
    device: str,
    out: Path,
    broken: Mapping[str, str] | None = None,
    broken_arms: Mapping[str, str] | None = None,
) -> int:
    """Do a study in `out` and return the exit code: 1 if an arm or a metric failed, else 0.

    `broken` are the metrics that are left out, by label with the reason; `broken_arms` likewise the
    arms of the study that `runs` lacks.
    """
    broken_arms = broken_arms or {}
    from salt_zoo.training.devices import find_device, join_processes

    place = str(find_device(device))
    for run in runs.values():
        make_backbone(run, zoo).prepare()  # what cannot be had is one error now, not one an arm
    long = study.evaluation.long
    for metrics in (study.evaluation.metrics, (long and long.metrics) or []):
        for metric in make_metrics(zoo, metrics).values():
            metric.prepare()
    join_processes(place)
    with one_writer(out):
        on_main(lambda: prepare_folder(out))
        jobs = make_jobs(study, runs, zoo, out, find_device(device).type)
        hypotheses = with_own_samplers(study, zoo).hypotheses

        def begin() -> None:
            record_start(hypotheses, out, started=any(job.folder.exists() for job in jobs))
            for job in jobs:
                for line in set_right(job):
                    say_once(line)

        on_main(begin)
        with study_progress([job.folder.name.rpartition("-")[0] for job in jobs]) as progress:
            if is_alone():
                ended = run_jobs(jobs, plugins, place, study.workers, progress)
            else:  # every process takes part in every training
                ended = run_jobs_together(jobs, zoo, place, progress)
        errors, without = ended.errors, {**(broken or {}), **together(ended.metrics)}

        def end() -> None:
            if not errors:
                record_end(out)
            store: Store = {}
            stated = when_stated(hypotheses, out)
            results, measured = collect(
                study, runs, jobs, errors, zoo, place, stated, store, without, broken_arms
            )
            write(results, measured, zoo, out, store)
            for folder, error in errors.items():
                say(f"failed: {folder.name}: {error}")
            for label, error in broken_arms.items():
                say(f"failed: {label}: {error}")
            for line in without.values():
                say(f"failed: {line}")
            for line in few(View(results).not_finite()):
                say(f"warning: not finite: {line}")
            if off := View(results).off_budget():
                say(f"warning: {off}")
            show(out / "index.html")

        on_main(end)
    on_main(lambda: None)  # who ends with an error first would end the one that writes
    return 1 if errors or without or broken_arms else 0


def few(lines: Sequence[str]) -> list[str]:
    """Lines that a terminal is told of a list that the report has whole."""
    more = len(lines) - MOST_TOLD
    return [*lines[:MOST_TOLD], *([f"{more} more, see the report"] if more > 0 else [])]


def make_jobs(
    study: StudyConfig, runs: Mapping[str, Resolved], zoo: Zoo, out: Path, device: str = "cpu"
) -> list[Job]:
    """The baselines, then every arm at every seed, seeds outermost: an interrupted study has
    whole seeds to show. `device` is the type of the device that they will run on."""
    evaluation, versions = study.evaluation, Versions(zoo)
    metrics = plan_metrics(evaluation.metrics, zoo, versions)
    long = evaluation.long
    long_metrics = plan_metrics((long and long.metrics) or evaluation.metrics, zoo, versions)

    def job(label: str, seed: int | None, run: Resolved, origin: Origin) -> Job:
        own = None if seed is None else study.arm_evaluation(label)
        cells = plan_cells(label, evaluation, metrics, long_metrics, own)
        return Job.of(
            label,
            seed,
            run,
            cells,
            evaluation.batch_size,
            origin,
            device,
            out,
            study.keep_checkpoints,
        )

    origins = {label: origin_of(run, zoo, versions) for label, run in runs.items()}
    jobs = []
    firsts: dict[str, str] = {}
    for label, run in runs.items():
        firsts.setdefault(run.config.backbone["name"], label)
    weights: list[Mapping[str, Any]] = []
    for label in firsts.values():  # baselines do not depend on what is trained
        run, origin = runs[label], origins[label]
        rows = baselines_of(run, zoo, study.evaluation.split)
        if any(other.items() <= origin.inputs["backbone"].items() for other in weights):
            # the teacher of another backbone, whose rows are there already
            rows = [name for name in rows if name.startswith("initial")]
        weights.append(origin.inputs["backbone"])
        jobs += [job(name, None, run, origin) for name in rows]
    for round in range(max(len(study.seeds_of(label)) for label in runs)):
        for label, run in runs.items():
            for seed in study.seeds_of(label)[round : round + 1]:
                jobs.append(job(label, seed, run.with_seed(seed), origins[label]))
    return jobs


def origin_of(run: Resolved, zoo: Zoo, versions: Versions) -> Origin:
    """Digests of the weights and the data that a run starts from, and the versions of its parts."""
    parts = make_parts(run, zoo, versions)
    return Origin(parts.inputs(), parts.code, parts.code_of_inputs)


def baselines_of(run: Resolved, zoo: Zoo, split: str) -> list[str]:
    """Which baselines there are for a run's data and backbone."""
    dataset = make_dataset(run, zoo)
    one = dataset.real(dataset.prompts(split)[:1], KeyedRNG(0, ("try",), range(1)), split)
    there = [*network_baselines(run, zoo), *(["real"] if one is not None else [])]
    return [name for name in BASELINES if name in there]


def network_baselines(run: Resolved, zoo: Zoo) -> list[str]:
    """Which there are for its backbone, whatever the data."""
    causal = make_backbone(run, zoo).blocks().new_memory is not None
    return [
        name for name in BASELINES if name != "real" and (causal or not name.startswith("initial"))
    ]


def make_backbone(run: Resolved, zoo: Zoo) -> Any:
    return zoo.backbones.create(run.config.backbone["name"], run.backbone, zoo)


def make_dataset(run: Resolved, zoo: Zoo) -> Any:
    return zoo.datasets.create(run.config.dataset["name"], run.dataset, zoo)


def collect(
    study: StudyConfig,
    runs: Mapping[str, Resolved],
    jobs: Sequence[Job],
    errors: Mapping[Path, str],
    zoo: Zoo,
    device: str,
    stated: Sequence[Stated] = (),
    store: Store | None = None,
    without: dict[str, str] | None = None,
    broken_arms: Mapping[str, str] | None = None,
) -> tuple[Results, list[EvalResult]]:
    """The content of results.json from the folders of the jobs; `store` gets the statistics of
    features. `without` are metrics without numbers, by label with the reason; those that turn out
    broken here are added. `broken_arms` were never begun."""
    from benchmarks.runner.budget import budgets_of
    from benchmarks.runner.jobs.provenance import provenance, published
    from benchmarks.stats.results import build_results
    from salt_zoo.evaluation.videos import evaluation_prompts
    from salt_zoo.training.checkpoints.checkpoint import updates_done

    study = with_own_samplers(study, zoo)
    measured: list[EvalResult] = []
    costs: list[TrainingCost] = []
    broken: dict[str, str] = {}
    for job in jobs:
        if job.folder in errors:
            error = errors[job.folder]
            if job.seed is None:
                broken[job.label] = error
                continue
            step = updates_done(job.folder / "checkpoints")
            if job.trained:
                step = training_of(job.folder)["cost"]["updates"]
            costs.append(TrainingCost(job.label, job.seed, step, {}, 0.0, 0.0, error))
            continue
        found, cost = read_job(job)
        measured += found
        costs += [cost] if cost else []
    for label, error in (broken_arms or {}).items():
        seeds = study.seeds_of(label)
        costs += [TrainingCost(label, seed, 0, {}, 0.0, 0.0, error) for seed in seeds]
    without = {} if without is None else without
    measured = of_one_form(measured, without)
    evaluation, long = study.evaluation, study.evaluation.long
    metrics = guarded_infos(metric_infos(zoo, evaluation.metrics), without)
    first = next(iter(runs.values()))
    dataset = make_dataset(first, zoo)
    prompts = evaluation_prompts(
        dataset, evaluation.split, evaluation.prompts, evaluation.videos_per_prompt
    )
    of_long: dict[str, Any] = {}
    if long:
        of_long["long_metrics"] = guarded_infos(
            metric_infos(zoo, long.metrics or evaluation.metrics), without
        )
        of_long["long_prompts"] = evaluation_prompts(
            dataset, evaluation.split, long.prompts, long.videos_per_prompt
        )
    names = dict.fromkeys(chosen(metric).name for metric in evaluation.metrics)
    facts = provenance(zoo, device, make_parts(first, zoo).inputs(), prompts, list(names))
    done = [job for job in jobs if job.folder not in errors]
    facts |= _stamps(done)
    if broken:
        facts["failed_baselines"] = broken
    facts["configurations"] = {label: run.plain() for label, run in runs.items()}
    trained = [label for label in runs if any(c.arm == label and not c.error for c in costs)]
    with told_bar("statistics") as progress:
        results = build_results(
            plain(study),
            measured,
            costs,
            metrics,
            prompts,
            facts,
            **of_long,
            stated=stated,
            # the methods of other arms may do anything when they are asked
            budgets=budgets_of(study, {arm: runs[arm] for arm in trained}, zoo),
            store=store,
            progress=progress,
        )
    results = results.with_failed_metrics(without)
    # prompts are data, by which scores are found again
    content = {**published(results.to_json()), "prompts": results.prompts}
    return Results.model_validate(content), measured


def _stamps(jobs: Sequence[Job]) -> dict[str, Any]:
    """With which code, device, precision and torch the jobs were trained and measured; several
    entries say that a report mixes."""
    found: dict[str, list[dict[str, Any]]] = {"trained_on": [], "measured_on": []}
    for job in jobs:
        for kind, stamps in zip(found, stamps_of(job), strict=True):
            found[kind] += [stamp for stamp in stamps if stamp not in found[kind]]
    return {kind: sorted(stamps, key=str) for kind, stamps in found.items()}


def write(
    results: Results, measured: Sequence[EvalResult], zoo: Zoo, out: Path, store: Store
) -> None:
    """Write results.json, what the report can be rendered from again, and the report; tell the
    plugins."""
    from benchmarks.report.build import write_report
    from benchmarks.stats.results_file import write_results

    write_results(results, measured, out, store)
    extra = zoo.hook.report_sections(results=results.to_json(), folder=out)
    sections = [section for of_plugin in extra for section in of_plugin or ()]
    write_report(results, measured, out, sections)
    zoo.hook.study_finished(results=results.to_json(), folder=out)
