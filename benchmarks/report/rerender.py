"""`python -m benchmarks.report DIR`: a report again from what is in its folder, without training.

Scores come from samples.parquet and drift.parquet, statistics of features from replicates.npz,
videos from videos.npz, costs and provenance from results.json. Directions and kinds of metrics are
those of the registered ones. A folder that was made before replicates were kept (schema 1) has
intervals of features in its results.json only: those are carried over as they are, and what would
need the features is not measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evaluate.broken_metrics import guarded_infos
from benchmarks.evaluate.pictures import FILE as VIDEOS
from benchmarks.evaluate.pictures import read_videos
from benchmarks.evaluate.scores import read_measured
from benchmarks.report.build import render
from benchmarks.stats.carried import Carried
from benchmarks.stats.replicates import FILE as REPLICATES
from benchmarks.stats.replicates import read_store
from benchmarks.stats.results import analyse, plain_json
from benchmarks.study.hypotheses import with_own_samplers
from benchmarks.study.metric_info import MetricInfo, metric_infos
from benchmarks.study.schema import load_study, read_study
from benchmarks.study.stated import when_stated
from salt_zoo.cli import add_plugin_option, guarded, with_plugins
from salt_zoo.cli.arguments import Parser
from salt_zoo.cli.progress import told_bar
from salt_zoo.core.errors import ZooError, reason
from salt_zoo.io import storage
from salt_zoo.io.one_writer import one_writer
from salt_zoo.io.printing import show
from salt_zoo.io.storage import plain
from salt_zoo.plugin.manager import Zoo


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m benchmarks.report",
        description="Render a study's report again from what is in its folder.",
    )
    parser.add_argument("folder", type=Path, help="the report's folder, as in reports/digits")
    parser.add_argument(
        "--study",
        help="a study's file or name: take title, description, outcomes, claims, primary metric "
        "and tuning from it",
    )
    add_plugin_option(parser)
    options = parser.parse_args(arguments)

    def render_alone(given: argparse.Namespace, zoo: Zoo) -> int:
        read_results(given.folder)  # a folder without any is not to be touched
        with one_writer(given.folder):
            return rerender(given.folder, zoo, given.study)

    return guarded(lambda: with_plugins(render_alone, options))


def rerender(folder: Path, zoo: Zoo, file: str | None = None) -> int:
    """Write results.json, index.html, report.md, `tables` and `figures` of a folder anew.

    Args:
        file: a study's file or name, for what it says of its measurements; what was trained and
            measured stays as it was recorded.

    Raises:
        ZooError: the folder is no report's, a metric of it is not registered, or `file` is of
            another study.
    """
    results = read_results(folder)
    study = results["study"] if file is None else _told_by(file, results["study"], zoo)
    store, drift = _whole(read_store, folder), results["drift"]
    videos = _whole(read_videos, folder)  # whatever is damaged is found before anything is written
    infos = _infos(zoo, study)
    without = dict(results["provenance"].get("failed_metrics") or {})
    with told_bar("statistics") as told:
        found = analyse(
            study,
            _whole(read_measured, results, folder),
            results["arms"],
            guarded_infos(_chosen(infos, results["metrics"]), without),
            results["prompts"],
            results["bootstrap"]["resamples"],
            guarded_infos(_chosen(infos, drift["metrics"]), without) if drift else (),
            drift["prompts"] if drift else (),
            when_stated(study.get("primary") or (), folder),
            store,
            told,
            Carried(results) if results["schema"] == 1 or results.get("carried") else None,
        )
    found |= {key: results[key] for key in ("curves", "provenance")}
    if without:
        found["provenance"] = {**found["provenance"], "failed_metrics": without}
    found = plain_json(found)
    storage.write_json(folder / "results.json", found)
    extra = zoo.hook.report_sections(results=found, folder=folder)
    sections = [section for some in extra for section in some or ()]
    render(found, videos, folder, sections)
    show(folder / "index.html")
    return 0


#: The file that each of these reads.
_FILES = {
    read_store: REPLICATES,
    read_measured: "samples.parquet, drift.parquet",
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
        raise ZooError(
            f"{folder / _FILES[read]}: damaged ({reason(error)}); run the study again with "
            f"--out {folder}: what was trained and measured there is kept"
        ) from None


#: What a rendering reads of results.json.
_KEYS = {"metrics", "prompts", "bootstrap", "curves", "provenance", "drift"}


def read_results(folder: Path) -> dict[str, Any]:
    """The content of a folder's results.json."""
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ZooError(f"{path}: there is no such file; name the folder of a report") from None
    except (OSError, ValueError) as error:
        raise ZooError(f"{path}: cannot be read ({error})") from None
    if not isinstance(results, dict) or not {"schema", "rows", "study", "arms"} <= results.keys():
        raise ZooError(f"{path}: not the results of a study")
    if lost := sorted(_KEYS - results.keys() - ({"drift"} if results["schema"] == 1 else set())):
        raise ZooError(
            f"{path}: damaged (it has no {lost[0]!r}); run the study again with --out {folder}: "
            "what was trained and measured there is kept"
        )
    if results["schema"] == 1:
        results.setdefault("drift", None)
        for arm in results["arms"]:
            arm |= {"budget": None, "off_budget": None}
        long = results["drift"]["values"] if results["drift"] else ()
        for row in [*results["rows"], *long]:
            _in_videos(row.get("passes") or {})
    return results


def _in_videos(passes: dict[str, float]) -> None:
    """Schema 1 counted memory writes in blocks (of equal length), and guidance not among them."""
    if blocks := passes.get("memory"):
        passes["memory"] = (2 if passes.get("guidance") else 1) * blocks / (blocks + 1)


def _told_by(file: str, recorded: Mapping[str, Any], zoo: Zoo) -> dict[str, Any]:
    """The recorded study with what its file says now about the same measurements."""
    content, path = read_study(file)
    now = plain(with_own_samplers(load_study(content, str(path)), zoo))
    was, new = recorded["evaluation"], now["evaluation"]
    same = {"evaluation": {key: new.get(key) for key in was} == dict(was)}
    for key in ("name", "base", "arms", "seeds", "evaluation"):
        if not same.get(key, now[key] == recorded[key]):
            raise ZooError(
                f"{path}: {key}: is not what was run for this report; run the study again, or "
                "leave --study out"
            )
    told = ("title", "description", "primary", "claims", "primary_metric", "tuning")
    kept = {key: value for key, value in recorded.items() if key not in told}
    return kept | {key: now[key] for key in told if key in now}


def _infos(zoo: Zoo, study: Mapping[str, Any]) -> dict[str, MetricInfo]:
    """The metrics of a study by label, as they are registered now."""
    evaluation = study["evaluation"]
    long = evaluation.get("long") or {}
    asked = [*evaluation["metrics"], *(long.get("metrics") or ())]
    return {info.name: info for metric in asked for info in metric_infos(zoo, [metric])}


def _chosen(
    infos: Mapping[str, MetricInfo], entries: Sequence[Mapping[str, Any]]
) -> list[MetricInfo]:
    return [infos[entry["name"]] for entry in entries]
