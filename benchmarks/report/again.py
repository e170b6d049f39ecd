"""The results of a report again, from what is in its folder.

Scores come from samples.parquet and drift.parquet, statistics of features from replicates.npz,
videos from videos.npz, costs and provenance from results.json. Directions and kinds of metrics are
those of the registered ones. A report that was made before replicates were kept (`carried`) has
intervals of features in its results.json only: those are carried over as they are, and comparisons
that would need the features are not made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evaluate.broken_metrics import guarded_infos
from benchmarks.evaluate.pictures import FILE as VIDEOS
from benchmarks.evaluate.pictures import Pictures, read_videos
from benchmarks.stats.carried import Carried
from benchmarks.stats.intervals.replicates import FILE as REPLICATES
from benchmarks.stats.intervals.replicates import read_store
from benchmarks.stats.model.entries import MetricEntry
from benchmarks.stats.model.schema import Results, StudyRecord
from benchmarks.stats.report_digests import check_digests
from benchmarks.stats.results import analyse
from benchmarks.stats.results_file import FILE as RESULTS
from benchmarks.stats.results_file import read_results
from benchmarks.stats.score_files import read_scores
from benchmarks.study.hypotheses import with_own_samplers
from benchmarks.study.metric_info import MetricInfo, metric_infos
from benchmarks.study.schema import load_study, read_study
from benchmarks.study.stated import when_stated
from salt_zoo.cli.progress import told_bar
from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.io.files.storage import plain
from salt_zoo.plugin.isolation.foreign import show_traceback
from salt_zoo.plugin.manager import Zoo


def analyse_again(folder: Path, zoo: Zoo, file: str | None = None) -> tuple[Results, Pictures]:
    """The results of a report's folder, and its videos; nothing is written.

    Args:
        file: a study's file or name, for what it states about the same measurements; what was
            trained and measured stays as it was recorded.

    Raises:
        ZooError: the folder is no report's, or was changed since; a metric of it is not registered,
            or `file` is of another study.
    """
    old = read_results(folder)
    check_digests(folder)
    study = old.study if file is None else _restated(file, old.study, zoo)
    store, drift = _whole(read_store, folder), old.drift
    videos = _whole(read_videos, folder)  # whatever is damaged is found before anything is written
    try:
        infos = _infos(zoo, study)
    except (KeyError, TypeError, AttributeError):
        raise ZooError(
            f"{folder / RESULTS}: study.evaluation: it lacks the metrics; {_AGAIN.format(folder)}"
        ) from None
    broken = dict(old.provenance.failed_metrics)
    with told_bar("statistics") as progress:
        try:
            results = analyse(
                study,
                _whole(read_scores, old, folder),
                guarded_infos(_chosen(infos, old.metrics), broken),
                old.prompts,
                arms=old.arms,
                curves=old.curves,
                provenance=old.provenance,
                resamples=old.bootstrap.resamples,
                long_metrics=guarded_infos(_chosen(infos, drift.metrics), broken) if drift else (),
                long_prompts=drift.prompts if drift else (),
                stated=when_stated(study.hypotheses, folder),
                store=store,
                progress=progress,
                carried=Carried(old) if old.carried else None,
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            # what stands in the files does not go together
            show_traceback(error)
            raise ZooError(
                f"{folder / RESULTS}: damaged ({reason(error)}); {_AGAIN.format(folder)}"
            ) from None
    return results.with_failed_metrics(broken), videos


#: The file that each of these reads.
_FILES = {
    read_store: REPLICATES,
    read_scores: "samples.parquet, drift.parquet",
    read_videos: VIDEOS,
}


def _whole(read: Callable[..., Any], *arguments: Any) -> Any:
    """What `read` reads of a folder, its last argument.

    Raises:
        ZooError: the file is damaged.
    """
    try:
        return read(*arguments)
    except ZooError:
        raise
    except Exception as error:  # numpy, zipfile and pyarrow raise many kinds
        folder = arguments[-1]
        show_traceback(error)
        raise ZooError(
            f"{folder / _FILES[read]}: damaged ({reason(error)}); {_AGAIN.format(folder)}"
        ) from None


#: What mends a damaged report.
_AGAIN = "run the study again with --out {}: what was trained and measured there is kept"


def _restated(file: str, recorded: StudyRecord, zoo: Zoo) -> StudyRecord:
    """The recorded study with what its file states now about the same measurements."""
    content, path = read_study(file)
    now = plain(with_own_samplers(load_study(content, str(path)), zoo))
    was = recorded.to_json()
    new = {key: now["evaluation"].get(key) for key in was["evaluation"]}
    same = {"evaluation": new == was["evaluation"]}
    for key in ("name", "base", "arms", "seeds", "evaluation"):
        if not same.get(key, now[key] == was[key]):
            raise ZooError(
                f"{path}: {key}: is not what was run for this report; run the study again, or "
                "omit --study"
            )
    stated = ("title", "description", "hypotheses", "claims", "primary_metric", "tuning")
    kept = {key: value for key, value in was.items() if key not in stated}
    return StudyRecord.model_validate(kept | {key: now[key] for key in stated if key in now})


def _infos(zoo: Zoo, study: StudyRecord) -> dict[str, MetricInfo]:
    """The metrics of a study by label, as they are registered now."""
    evaluation = study.to_json()["evaluation"]
    long = evaluation.get("long") or {}
    metrics = [*evaluation["metrics"], *(long.get("metrics") or ())]
    return {info.name: info for metric in metrics for info in metric_infos(zoo, [metric])}


def _chosen(infos: Mapping[str, MetricInfo], entries: Sequence[MetricEntry]) -> list[MetricInfo]:
    return [infos[entry.name] for entry in entries]
