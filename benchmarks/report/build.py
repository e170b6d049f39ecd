"""The report of a study: one HTML file to look at, Markdown to link to, and tables.

`python -m benchmarks.report DIR` renders it again from what is in its folder; see `rerender`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from benchmarks.evaluate.pictures import Pictures, shown_videos
from benchmarks.evaluate.records import EvalResult
from benchmarks.report.model import formats
from benchmarks.report.model.formats import duration, flops, quantity, whole
from benchmarks.report.model.model import Setting, View
from benchmarks.report.sections.drift import DRIFT_TABLES, DriftView, column_title
from benchmarks.report.sections.figures import quality_plot, training_plot
from benchmarks.report.sections.gallery import FRAMES_PER_SECOND, cards, videos_of, write_animation
from benchmarks.report.sections.style import SERIES, later_lap, standalone
from benchmarks.report.sections.summary import (
    answer,
    answer_lines,
    caption,
    mixes,
    target_note,
    tuning,
)
from benchmarks.report.sections.tables import TABLES, write_tables
from benchmarks.stats.model.schema import ArmCost, Results
from benchmarks.study.text import FileNames, all_shown, cleaned, shown_text
from salt_zoo.io.files import storage

TEMPLATES = Path(__file__).parent / "templates"

#: Of the numbers that trainings log, so many are plotted; quality comes first.
MOST_CURVES = 12


def write_report(
    results: Results,
    measured: Sequence[EvalResult],
    folder: Path,
    sections: Sequence[tuple[str, str]] = (),
) -> None:
    """`render` with the videos of the measured arms."""
    render(results, shown_videos(measured), Path(folder), sections)


def render(
    results: Results,
    pictures: Pictures,
    folder: Path,
    sections: Sequence[tuple[str, str]] = (),
) -> None:
    """Write index.html, report.md, and the folders `figures` and `tables`.

    index.html is self-contained: no script, no request. `sections` are plugins' `(title, text)`
    with blank lines between paragraphs; like every name and prompt they are shown as they are.
    """
    results = Results.model_validate(all_shown(results.to_json()))
    pictures = {tuple(map(shown_text, key)): videos for key, videos in pictures.items()}
    sections = [(shown_text(title), text) for title, text in sections]
    view = View(results)
    plots = _plots(view)
    drift = DriftView(view, results.drift) if results.drift else None
    drift_plots = drift.plots() if drift else {}
    videos = {setting: videos_of(pictures, setting) for setting in view.settings}
    with storage.atomic_folder(folder / "tables") as draft:
        names = FileNames(*TABLES, *DRIFT_TABLES)
        write_tables(view, draft, names)
        if drift:
            drift.write_tables(draft, names)
    with storage.atomic_folder(folder / "figures") as draft:
        figures, names = [], FileNames()
        for (metric, setting), plot in plots.items():
            title = setting.title(view.settings)
            name = names.of(".svg", "quality", metric, title)
            (draft / name).write_text(standalone(plot), encoding="utf-8")
            figures.append((name, metric, title))
        drift_figures = []
        for (metric, where), plot in drift_plots.items():
            assert drift is not None
            title = where.title(drift.settings)
            name = names.of(".svg", "drift", metric, title)
            (draft / name).write_text(standalone(plot), encoding="utf-8")
            drift_figures.append((name, metric, title))
        first = next((of_setting for of_setting in videos.values() if of_setting), None)
        if first:
            write_animation(first, view, draft / "videos.gif")
    context = {
        "view": view,
        "results": results,
        "study": results.study,
        "answer": answer(view),
        "answer_lines": answer_lines(view),
        "caption": caption(view),
        "target_note": target_note(view, [h.metric for h in view.results.hypotheses]),
        "tuning": tuning(view),
        "mixes": mixes(view),
        "sections": [(title, _paragraphs(text)) for title, text in sections],
        "animation": bool(first),
        "drift": drift,
        "costs": _costs(view),
    }
    html = _environment(autoescape=True)
    page = html.get_template("report.html.j2").render(
        **context,
        plots={key: Markup(plot) for key, plot in plots.items()},
        drift_plots={key: Markup(plot) for key, plot in drift_plots.items()},
        films=drift.films(pictures) if drift else [],
        training=[(name, Markup(plot)) for name, plot in _training(view)],
        galleries=[
            (setting, shown)
            for index, (setting, of_setting) in enumerate(videos.items())
            if (shown := cards(of_setting, view, f"v{index}_"))
        ],
        frames_per_second=FRAMES_PER_SECOND,
    )
    text = (
        _environment(autoescape=False)
        .get_template("report.md.j2")
        .render(**context, figures=figures, drift_figures=drift_figures)
    )
    storage.write_text(folder / "report.md", re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")
    storage.write_text(folder / "index.html", page)


@functools.cache  # with the templates that it has compiled
def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for name in (
        "number",
        "signed",
        "interval",
        "quantity",
        "duration",
        "level",
        "percent",
        "level_text",
        "flops",
        "whole",
    ):
        environment.filters[name] = getattr(formats, name)
    environment.filters["column_title"] = column_title
    if not autoescape:
        environment.filters["e"] = _markdown
    environment.filters["pretty"] = lambda content: json.dumps(
        storage.plain(content), indent=2, ensure_ascii=False, sort_keys=True
    )
    environment.globals["series"] = lambda arms, arm: (
        f"var(--s{arms.index(arm) % len(SERIES) + 1})" if arm in arms else "var(--muted)"
    )
    environment.globals["later_lap"] = later_lap
    return environment


def _plots(view: View) -> dict[tuple[str, Setting], str]:
    return {
        (metric.name, setting): plot
        for metric, setting in view.shown_pairs()
        if (plot := quality_plot(view, metric, setting))
    }


def _training(view: View) -> list[tuple[str, str]]:
    """Plots of what the trainings logged: quality first, then the students' losses."""
    curves = view.results.curves
    keys = dict.fromkeys(key for curve in curves for point in curve.points for key in point)
    names = [key for key in keys if key not in ("step", "seconds")]
    names.sort(
        key=lambda key: (not key.startswith("quality/"), not key.startswith("student/"), key)
    )
    plots = ((name, training_plot(curves, name, view)) for name in names[:MOST_CURVES])
    return [(name, plot) for name, plot in plots if plot]


def _costs(view: View) -> dict[str, Any]:
    """For bars of training costs: the arms that trained, networks in order, and maxima; and the
    cost of all trainings."""
    arms = [arm for arm in view.results.arms if arm.seeds]
    return {
        "arms": [(arm, _passes(arm)) for arm in arms],
        "together": _together(arms),
        "budgeted": any(arm.off_budget is not None for arm in arms),
        "roles": list(dict.fromkeys(role for arm in arms for role in arm.passes)),
        "most": {
            "passes": max(map(_passes, arms), default=0) or 1,
            "flops": max((arm.flops or 0 for arm in arms), default=0) or 1,
            "seconds": max((arm.seconds or 0 for arm in arms), default=0) or 1,
        },
    }


def _together(arms: Sequence[ArmCost]) -> str:
    def total(size: Callable[[ArmCost], float | None]) -> float:
        return sum((size(arm) or 0) * len(arm.seeds) for arm in arms)

    count = sum(len(arm.seeds) for arm in arms)
    return (
        f"{count} training{'s' if count != 1 else ''} in total: "
        f"{whole(total(lambda arm: arm.updates))} updates, {quantity(total(_passes))} passes, "
        f"{flops(total(lambda arm: arm.flops))}, "
        f"{duration(total(lambda arm: arm.seconds))} of one worker, excluding evaluation."
    )


def _passes(arm: ArmCost) -> float:
    """Network passes of one training, of all networks, forward and backward."""
    return sum(ways.forward + ways.backward for ways in arm.passes.values())


def _paragraphs(text: str) -> list[str]:
    return [cleaned(part.strip()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _markdown(text: Any) -> str:
    """A text with the characters escaped that Markdown would interpret."""
    text = re.sub(r"\s+", " ", str(text)).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]#|>~$])", r"\\\1", text)
