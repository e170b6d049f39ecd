"""Small plots as SVG that takes its colours and letters from the page that it stands in."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
#: Height of a line of letters in inches.
LETTERS = 0.146
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


def later_lap(arms: Sequence[str], arm: str) -> bool:
    """Whether an arm shares its colour with an earlier one, and is drawn dashed and hollow."""
    return arm in arms and arms.index(arm) >= len(SERIES)


@dataclass(frozen=True, eq=False)
class _Line:
    """What is drawn: a line with its band and style, named at its right end; or, without `x`, a
    level that holds everywhere."""

    label: str
    arm: str
    shade: str
    x: Sequence[float]
    y: np.ndarray
    style: dict[str, Any]
    band: tuple[np.ndarray, np.ndarray] | None = None


def quality_plot(view: View, metric: Entry, setting: Setting) -> str | None:
    """A metric against NFE, a line with its interval's band for each arm; None without data."""
    table = view.table(metric, setting)
    lines, levels = [], []
    for own in table.lines:
        shade, entry = colour(view.arms, own.arm), own.single
        cells = [c for c in own.cells if c and c["mean"] is not None]
        if entry and entry["mean"] is not None:
            dashes = (0, (1, 1.5)) if own.arm == "teacher" else (0, (5, 1.5))
            style: dict[str, Any] = {"linewidth": 0.9, "linestyle": dashes}
            levels.append(_Line(own.label, own.arm, MUTED, [], np.array([entry["mean"]]), style))
        elif cells:
            y, low, high = (np.array([c[k] for c in cells]) for k in ("mean", "low", "high"))
            style = _line_style(view.arms, own.arm)
            x = [c["nfe"] for c in cells]
            lines.append(_Line(own.label, own.arm, shade, x, y, style, (low, high)))
    if not lines:
        return None
    values = [float(value) for line in lines for value in line.y]
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"{metric['name']}{setting}"}):
        figure, panels = _panels(view, [*lines, *levels])
        for axes, drawn in panels:
            _draw(axes, [line for line in drawn if line in lines])
            axes.set_xscale("log", base=2)
            axes.set_xticks(view.nfes, [str(nfe) for nfe in view.nfes])
            axes.minorticks_off()
        first = panels[0][0]
        if metric["better"] == "lower" and min(values) > 0 and max(values) > 12 * min(values):
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
        _label_all(panels)
        return _svg(figure)


def drift_plot(
    curves: Sequence[Entry], metric: Entry, view: View, lengths: Sequence[int]
) -> str | None:
    """A metric against the frame at which its clips end, a line with its band for each arm; None
    without data. The training's length and its multiples are marked."""
    lines = []
    for curve in curves:
        points = [point for point in curve["points"] if point["mean"] is not None]
        if not points:
            continue
        y, low, high = (
            np.array([np.nan if p[k] is None else p[k] for p in points], float)
            for k in ("mean", "low", "high")
        )
        arm = curve["arm"]
        style = {**_line_style(view.arms, arm), "marker": ""}
        if curve["reference"]:
            dashes = (0, (5, 1.5)) if arm == "real" else (0, (3, 2))
            style = {"linewidth": 1.0, "linestyle": dashes}
        x = [point["stop"] for point in points]
        band = None if curve["reference"] else (low, high)
        lines.append(_Line(arm, arm, colour(view.arms, arm), x, y, style, band))
    if not lines:
        return None
    values = [float(value) for line in lines for value in line.y]
    salt = f"drift {metric['name']}{[curve['nfe'] for curve in curves]}"
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure, panels = _panels(view, lines)
        for axes, drawn in panels:
            _draw(axes, drawn)
            frames = curves[0]["frames"]
            axes.axvline(frames, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
            axes.set_xticks([frames * length for length in lengths])
        # what changes is read off a linear scale; a band far wider than all lines is cut off
        room = 0.4 * (max(values) - min(values)) or 0.1
        first = panels[0][0]
        first.autoscale_view()
        bottom, top = first.get_ylim()
        first.set_ylim(max(bottom, min(values) - room), min(top, max(values) + room))
        panels[-1][0].set_xlabel(f"last frame of the clip (trained on {frames}: the dotted line)")
        _label_all(panels)
        return _svg(figure)


def training_plot(curves: Sequence[Mapping[str, Any]], key: str, view: View) -> str | None:
    """A logged number against updates: every seed faint, their mean strong where seeds agree on
    the steps."""
    faint, lines = [], []
    for arm in view.arms:
        runs = [
            {p["step"]: p[key] for p in curve["points"] if p.get(key) is not None}
            for curve in curves
            if curve["arm"] == arm
        ]
        runs = [run for run in runs if run]
        if not runs:
            continue
        shade = colour(view.arms, arm)
        for run in runs:
            if len(runs) > 1:
                style: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.35}
                seed = np.array(list(run.values()))
                faint.append(_Line("", arm, shade, list(run), seed, style))
        steps = sorted(set.intersection(*(set(run) for run in runs)))
        if steps:
            mean = np.array([float(np.mean([run[step] for run in runs])) for step in steps])
            style = {**_line_style(view.arms, arm), "marker": "", "linewidth": 1.5}
            lines.append(_Line(arm, arm, shade, steps, mean, style))
    if not lines:
        return None
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure, panels = _panels(view, lines)
        for (axes, drawn), panel in zip(panels, view.panels(len(SERIES)), strict=True):
            _draw(axes, [line for line in faint if line.arm in panel.arms])
            _draw(axes, drawn)
        panels[-1][0].set_xlabel("student updates")
        _label_all(panels)
        return _svg(figure)


def standalone(svg: str) -> str:
    """An inline plot as a file of its own: its colours fixed, on white paper."""
    for fixed, variable in _PAGE_COLOURS.items():
        svg = svg.replace(variable, fixed)
    return re.sub(
        r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#fff"/>', svg, count=1
    )


def _panels(view: View, lines: Sequence[_Line]) -> tuple[Figure, list[tuple[Axes, list[_Line]]]]:
    """A figure of the view's panels, one above another on a common scale, each with its lines and
    tall enough for their names."""
    shown = view.panels(len(SERIES))
    drawn = [[line for line in lines if line.arm in panel.arms] for panel in shown]
    # in inches: the axes, and below each what its ticks and the next one's title take
    heights = [max(2.2, LETTERS * len(some)) for some in drawn]
    below, above = 0.42, 0.09 if len(shown) == 1 else 0.3
    whole = sum(heights) + len(shown) * (below + above)
    figure = Figure(figsize=(4.6, whole), facecolor="none")
    FigureCanvasSVG(figure)
    found: list[tuple[Axes, list[_Line]]] = []
    top = whole
    for panel, height, some in zip(shown, heights, drawn, strict=True):
        place = (0.09, (top - above - height) / whole, 0.65, height / whole)
        axes = figure.add_axes(place, facecolor="none", sharey=found[0][0] if found else None)
        if panel.title:
            axes.set_title(panel.title, loc="left", fontsize=8.5, color=MUTED)
        found.append((axes, some))
        top -= above + height + below
    return figure, found


def _draw(axes: Axes, lines: Sequence[_Line]) -> None:
    for line in lines:
        if line.band:
            axes.fill_between(line.x, *line.band, color=line.shade, alpha=0.16, linewidth=0)
        axes.plot(line.x, line.y, color=line.shade, **line.style)
    axes.margins(x=0.02)


def _line_style(arms: Sequence[str], arm: str) -> dict[str, Any]:
    if arm not in arms:
        return {"linewidth": 1.1, "linestyle": (0, (3, 2)), "marker": ".", "markersize": 4}
    marker = MARKERS[arms.index(arm) % len(MARKERS)]
    style: dict[str, Any] = {"linewidth": 1.6, "marker": marker, "markersize": 4.2}
    if later_lap(arms, arm):
        style |= {"linestyle": (0, (6, 1.5)), "markerfacecolor": "none"}
    return style


def _off_scale(axes: Axes, value: float) -> bool:
    """A value that a logarithmic scale cannot show, such as a perfect 0."""
    return axes.get_yscale() == "log" and value <= 0


def _label_all(panels: Sequence[tuple[Axes, Sequence[_Line]]]) -> None:
    for axes, lines in panels:
        _label_ends(axes, [(float(line.y[-1]), line.label, line.shade) for line in lines])


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write every line's name at its right end, pushed apart where lines meet."""
    if not ends:
        return
    gap = LETTERS * axes.figure.dpi / axes.bbox.height  # of the axes' height
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
