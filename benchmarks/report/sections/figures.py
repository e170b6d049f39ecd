"""The plots of a report: quality against steps and over time, and training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.report.model.model import Setting, View
from benchmarks.report.sections.style import (
    INK,
    LETTERS,
    MUTED,
    SERIES,
    STYLE,
    Line,
    colour,
    draw,
    label_all,
    line_style,
    panels_of,
    svg,
)
from benchmarks.stats.model.entries import DriftCurve, Estimate, MetricEntry
from benchmarks.stats.model.schema import TrainingCurve


def quality_plot(view: View, metric: MetricEntry, setting: Setting) -> str | None:
    """A metric against NFE, a line with its interval's band for each arm, or a dot with its
    interval where there is one NFE; None without data."""
    table = view.table(metric, setting)
    lines, levels = [], []
    for of_arm in table.lines:
        label, arm, row = of_arm.label, of_arm.arm, of_arm.single
        cells = [cell for cell in of_arm.cells if cell and cell.mean is not None]
        if row and row.mean is not None:
            dashes = (0, (1, 1.5)) if arm == "teacher" else (0, (5, 1.5))
            style: dict[str, Any] = {"linewidth": 0.9, "linestyle": dashes}
            levels.append(Line(label, arm, MUTED, [], np.array([row.mean]), style))
        elif cells:
            y, low, high = _interval_arrays(cells)
            style, shade = line_style(view.arms, arm), colour(view.arms, arm)
            x = [cell.nfe or 0 for cell in cells]
            lines.append(Line(label, arm, shade, x, y, style, (low, high)))
    if not lines:
        return None
    salt = f"{metric.name}{setting}"
    if len(table.nfes) == 1:  # a metric with rollouts of its own
        return _dots([*lines, *levels], salt)
    values = [float(value) for line in lines for value in line.y]
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure, panels = panels_of(view, [*lines, *levels])
        for axes, drawn in panels:
            draw(axes, [line for line in drawn if line in lines])
            axes.set_xscale("log", base=2)
            axes.set_xticks(view.nfes, [str(nfe) for nfe in view.nfes])
            axes.minorticks_off()
        first = panels[0][0]
        if metric.direction == "lower" and min(values) > 0 and max(values) > 12 * min(values):
            first.set_yscale("log")
            bottom = min(axes.get_ylim()[0] for axes, _ in panels)
            first.set_ylim(bottom=max(bottom, min(values) / 4))  # bands may go below 0
            for axes, _ in panels:
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for axes, drawn in panels:
            drawn[:] = [line for line in drawn if not _off_scale(axes, line.y[-1])]
            for line in drawn:
                if line in levels:
                    axes.axhline(line.y[-1], color=line.shade, **line.style)
        panels[-1][0].set_xlabel("steps (NFE)")
        label_all(panels)
        return svg(figure)


def _dots(lines: Sequence[Line], salt: str) -> str:
    """One below another: a dot with its interval for each line."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        above, below = 1.35 * LETTERS * len(lines) + 0.1, 0.3
        figure = Figure(figsize=(4.6, above + below), facecolor="none")
        FigureCanvasSVG(figure)
        bottom = below / (above + below)
        axes = figure.add_axes((0.33, bottom, 0.64, 0.98 - bottom), facecolor="none")
        for height, line in enumerate(lines):
            if line.band:
                ends = [float(bound[0]) for bound in line.band]
                axes.plot(ends, [height, height], color=line.shade, linewidth=1.4, alpha=0.55)
            marker = {"marker": line.style.get("marker", "d"), "markersize": 4.2}
            axes.plot(
                line.y, [height], color=line.shade, **{**line.style, **marker, "linestyle": ""}
            )
        axes.set_yticks(range(len(lines)), [line.label for line in lines], fontsize=8)
        for name, line in zip(axes.get_yticklabels(), lines, strict=True):
            name.set_color(line.shade)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        return svg(figure)


def drift_plot(
    curves: Sequence[DriftCurve], metric: MetricEntry, view: View, lengths: Sequence[int]
) -> str | None:
    """A metric against the frame at which its clips end, a line with its band for each arm; None
    without data. The training's length and its multiples are marked."""
    lines = []
    for curve in curves:
        points = [point for point in curve.points if point.mean is not None]
        if not points:
            continue
        y, low, high = _interval_arrays(points)
        arm = curve.arm
        style = {**line_style(view.arms, arm), "marker": ""}
        if curve.baseline:
            dashes = (0, (5, 1.5)) if arm == "real" else (0, (3, 2))
            style = {"linewidth": 1.0, "linestyle": dashes}
        x = [point.stop for point in points]
        band = None if curve.baseline else (low, high)
        lines.append(Line(arm, arm, colour(view.arms, arm), x, y, style, band))
    if not lines:
        return None
    values = [float(value) for line in lines for value in line.y]
    salt = f"drift {metric.name}{[curve.nfe for curve in curves]}"
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure, panels = panels_of(view, lines)
        for axes, drawn in panels:
            draw(axes, drawn)
            frames = curves[0].frames
            axes.axvline(frames, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
            axes.set_xticks([frames * length for length in lengths])
        # what changes is read off a linear scale; a band far wider than all lines is cut off
        room = 0.4 * (max(values) - min(values)) or 0.1
        first = panels[0][0]
        first.autoscale_view()
        bottom, top = first.get_ylim()
        first.set_ylim(max(bottom, min(values) - room), min(top, max(values) + room))
        panels[-1][0].set_xlabel(f"last frame of the clip (trained on {frames}: the dotted line)")
        label_all(panels)
        return svg(figure)


def training_plot(curves: Sequence[TrainingCurve], key: str, view: View) -> str | None:
    """A logged number against updates: every seed faint, their mean strong where seeds agree on
    the steps."""
    faint, lines = [], []
    for arm in view.arms:
        runs = [
            {int(p["step"] or 0): p[key] for p in curve.points if p.get(key) is not None}
            for curve in curves
            if curve.arm == arm
        ]
        runs = [run for run in runs if run]
        if not runs:
            continue
        shade = colour(view.arms, arm)
        for run in runs:
            if len(runs) > 1:
                style: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.35}
                seed = np.array(list(run.values()))
                faint.append(Line("", arm, shade, list(run), seed, style))
        steps = sorted(set.intersection(*(set(run) for run in runs)))
        if steps:
            mean = np.array([float(np.mean([run[step] for run in runs])) for step in steps])
            style = {**line_style(view.arms, arm), "marker": "", "linewidth": 1.5}
            lines.append(Line(arm, arm, shade, steps, mean, style))
    if not lines:
        return None
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure, panels = panels_of(view, lines)
        for (axes, drawn), panel in zip(panels, view.panels(len(SERIES)), strict=True):
            draw(axes, [line for line in faint if line.arm in panel.arms])
            draw(axes, drawn)
        panels[-1][0].set_xlabel("student updates")
        label_all(panels)
        return svg(figure)


def _interval_arrays(entries: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high; NaN where there is no number, which is drawn as a gap."""
    values = [(entry.mean, entry.low, entry.high) for entry in entries]
    mean, low, high = np.array(values, float).T
    return mean, low, high


def _off_scale(axes: Axes, value: float) -> bool:
    """A value that a logarithmic scale cannot show, such as a perfect 0."""
    return axes.get_yscale() == "log" and value <= 0
