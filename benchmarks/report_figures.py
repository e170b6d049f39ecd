"""Small plots as SVG that takes its colours and letters from the page that it stands in."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.report_view import Entry, Setting, View

#: Series colours that stay apart for colour-blind readers (after Okabe and Ito), on light paper.
SERIES = (
    "#0072b2", "#d55e00", "#009e73", "#c2619a", "#b98200", "#3e9bd1", "#8a5a2b", "#6a51a3",
)  # fmt: skip
MARKERS = "osD^vPX*"
INK, MUTED, FAINT = "#1f2328", "#6b7280", "#d8dce2"

_PAGE_COLOURS = {colour: f"var(--s{place + 1})" for place, colour in enumerate(SERIES)}
_PAGE_COLOURS |= {INK: "var(--ink)", MUTED: "var(--muted)", FAINT: "var(--line)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # letters stay letters
    "text.parse_math": False,  # names may hold dollar signs
    "font.size": 8.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
}


def colour(arms: Sequence[str], arm: str) -> str:
    return SERIES[arms.index(arm) % len(SERIES)] if arm in arms else MUTED


def quality_plot(view: View, metric: Entry, setting: Setting) -> str | None:
    """A metric against NFE, a line with its interval's band for each arm; None without data."""
    name = metric["name"]
    table = view.table(metric, setting)
    lines = [line for line in table.lines if line.cells]
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"{name}{setting}"}):
        figure, axes = _panel(right=0.74)
        ends: list[tuple[float, str, str]] = []
        values: list[float] = []
        for line in lines:
            cells = [c for c in line.cells if c and c["mean"] is not None]
            if not cells:
                continue
            x = [c["nfe"] for c in cells]
            y, low, high = (np.array([c[k] for c in cells]) for k in ("mean", "low", "high"))
            shade = colour(view.arms, line.arm)
            style = _line_style(view.arms, line.arm)
            axes.fill_between(x, low, high, color=shade, alpha=0.16, linewidth=0)
            axes.plot(x, y, color=shade, **style)
            ends.append((y[-1], line.label, shade))
            values += y.tolist()
        if not values:
            return None
        if metric["better"] == "lower" and min(values) > 0 and max(values) > 12 * min(values):
            axes.set_yscale("log")
            axes.set_ylim(bottom=max(axes.get_ylim()[0], min(values) / 4))  # bands may go below 0
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for line in table.lines:
            entry = line.single
            if entry and entry["mean"] is not None and not _off_scale(axes, entry["mean"]):
                dashes = (0, (1, 1.5)) if line.arm == "teacher" else (0, (5, 1.5))
                axes.axhline(entry["mean"], color=MUTED, linewidth=0.9, linestyle=dashes)
                ends.append((entry["mean"], line.label, MUTED))
        axes.set_xscale("log", base=2)
        axes.set_xticks(view.nfes, [str(nfe) for nfe in view.nfes])
        axes.minorticks_off()
        axes.set_xlabel("steps (NFE)")
        axes.margins(x=0.02)
        _label_ends(axes, ends)
        return _svg(figure)


def drift_plot(
    curves: Sequence[Entry], metric: Entry, view: View, lengths: Sequence[int]
) -> str | None:
    """A metric against the frame at which its clips end, a line with its band for each arm; None
    without data. The training's length and its multiples are marked."""
    salt = f"drift {metric['name']}{[curve['nfe'] for curve in curves]}"
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure, axes = _panel(right=0.74)
        ends: list[tuple[float, str, str]] = []
        values: list[float] = []
        for curve in curves:
            points = [point for point in curve["points"] if point["mean"] is not None]
            if not points:
                continue
            x = [point["stop"] for point in points]
            y, low, high = (
                np.array([np.nan if p[k] is None else p[k] for p in points], float)
                for k in ("mean", "low", "high")
            )
            shade = colour(view.arms, curve["arm"])
            style: dict[str, Any] = {"linewidth": 1.6}
            if curve["reference"]:
                dashes = (0, (5, 1.5)) if curve["arm"] == "real" else (0, (3, 2))
                style = {"linewidth": 1.0, "linestyle": dashes}
            else:
                axes.fill_between(x, low, high, color=shade, alpha=0.16, linewidth=0)
            axes.plot(x, y, color=shade, **style)
            ends.append((y[-1], curve["arm"], shade))
            values += y.tolist()
        if not values:
            return None
        # what changes is read off a linear scale; a band far wider than all lines is cut off
        axes.autoscale_view()
        room = 0.4 * (max(values) - min(values)) or 0.1
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, min(values) - room), min(top, max(values) + room))
        frames = curves[0]["frames"]
        axes.axvline(frames, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
        axes.set_xticks([frames * length for length in lengths])
        axes.set_xlabel(f"last frame of the clip (trained on {frames}: the dotted line)")
        axes.margins(x=0.02)
        _label_ends(axes, ends)
        return _svg(figure)


def training_plot(curves: Sequence[Mapping[str, Any]], key: str, arms: Sequence[str]) -> str | None:
    """A logged number against updates: every seed faint, their mean strong where seeds agree on
    the steps."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure, axes = _panel(right=0.74)
        ends: list[tuple[float, str, str]] = []
        for arm in arms:
            runs = [
                {p["step"]: p[key] for p in curve["points"] if p.get(key) is not None}
                for curve in curves
                if curve["arm"] == arm
            ]
            runs = [run for run in runs if run]
            if not runs:
                continue
            shade = colour(arms, arm)
            for run in runs:
                if len(runs) > 1:
                    axes.plot(list(run), list(run.values()), color=shade, linewidth=0.6, alpha=0.35)
            steps = sorted(set.intersection(*(set(run) for run in runs)))
            if steps:
                mean = [float(np.mean([run[step] for run in runs])) for step in steps]
                axes.plot(steps, mean, color=shade, linewidth=1.5)
                ends.append((mean[-1], arm, shade))
        if not ends:
            return None
        axes.set_xlabel("student updates")
        axes.margins(x=0.02)
        _label_ends(axes, ends)
        return _svg(figure)


def standalone(svg: str) -> str:
    """An inline plot as a file of its own: its colours fixed, on white paper."""
    for fixed, variable in _PAGE_COLOURS.items():
        svg = svg.replace(variable, fixed)
    return re.sub(
        r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#fff"/>', svg, count=1
    )


def _panel(right: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 2.7), facecolor="none")
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.09, 0.15, right - 0.09, 0.82), facecolor="none")
    return figure, axes


def _line_style(arms: Sequence[str], arm: str) -> dict[str, Any]:
    if arm not in arms:
        return {"linewidth": 1.1, "linestyle": (0, (3, 2)), "marker": ".", "markersize": 4}
    marker = MARKERS[arms.index(arm) % len(MARKERS)]
    return {"linewidth": 1.6, "marker": marker, "markersize": 4.2}


def _off_scale(axes: Axes, value: float) -> bool:
    """A value that a logarithmic scale cannot show, such as a perfect 0."""
    return axes.get_yscale() == "log" and value <= 0


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write every line's name at its right end, pushed apart where lines meet."""
    gap = 0.066  # of the axes' height: one line of letters
    axes.autoscale_view()  # which else waits until the figure is drawn
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = sorted((float(to_axes.transform((1, y))[1]), name, shade) for y, name, shade in ends)
    heights = [height for height, _, _ in placed]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + gap)
    surplus = heights[-1] - max(1.0, placed[-1][0])
    if surplus > 0:  # push back down from the top
        heights[-1] -= surplus
        for place in range(len(heights) - 2, -1, -1):
            heights[place] = min(heights[place], heights[place + 1] - gap)
    for height, (end, name, shade) in zip(heights, placed, strict=True):
        axes.annotate(
            name if len(name) <= 20 else name[:19] + "…",
            xy=(1.0, end),
            xytext=(1.06, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=shade,
            va="center",
            fontsize=8,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": shade, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    for fixed, variable in _PAGE_COLOURS.items():
        text = text.replace(fixed, variable)
    return text.strip()
