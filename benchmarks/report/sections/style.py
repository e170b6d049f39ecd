"""Shared by all plots of a report: SVG that takes its colours and fonts from the page that it
stands in, lines with bands, panels, and names at the lines' ends."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.report.model.model import View

#: Series colours that stay apart for colour-blind readers (after Okabe and Ito), on light paper.
SERIES = (
    "#0072b2", "#d55e00", "#009e73", "#c2619a", "#b98200", "#3e9bd1", "#8a5a2b", "#6a51a3",
)  # fmt: skip
MARKERS = "osD^vPX*"
#: Height of a line of letters in inches, and the letters of a name that a plot has room for.
LETTERS, MOST_LETTERS = 0.146, 20
INK, MUTED, FAINT = "#1f2328", "#6b7280", "#d8dce2"

_PAGE_COLOURS = {colour: f"var(--s{index + 1})" for index, colour in enumerate(SERIES)}
_PAGE_COLOURS |= {INK: "var(--ink)", MUTED: "var(--muted)", FAINT: "var(--line)"}

STYLE: dict[Any, Any] = {
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
class Line:
    """A line with its band and style, named at its right end; or, without `x`, a
    level that holds everywhere."""

    label: str
    arm: str
    shade: str
    x: Sequence[float]
    y: np.ndarray
    style: dict[str, Any]
    band: tuple[np.ndarray, np.ndarray] | None = None


def standalone(svg: str) -> str:
    """An inline plot as a file of its own: its colours fixed, on white paper."""
    for fixed, variable in _PAGE_COLOURS.items():
        svg = svg.replace(variable, fixed)
    return re.sub(
        r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#fff"/>', svg, count=1
    )


def panels_of(view: View, lines: Sequence[Line]) -> tuple[Figure, list[tuple[Axes, list[Line]]]]:
    """A figure of the view's panels, one above another on a common scale, each with its lines and
    tall enough for their names."""
    shown = view.panels(len(SERIES))
    drawn = [[line for line in lines if line.arm in panel.arms] for panel in shown]
    # in inches: the axes, and below each what its ticks and the next one's title take
    heights = [max(2.2, LETTERS * len(in_panel)) for in_panel in drawn]
    below, above = 0.42, 0.09 if len(shown) == 1 else 0.3
    whole = sum(heights) + len(shown) * (below + above)
    longest = max((len(line.label) for line in lines), default=0)
    width = 4.6 + 0.066 * max(0, min(longest, MOST_LETTERS) - 15)
    figure = Figure(figsize=(width, whole), facecolor="none")
    FigureCanvasSVG(figure)
    panels: list[tuple[Axes, list[Line]]] = []
    top = whole
    for panel, height, in_panel in zip(shown, heights, drawn, strict=True):
        box = (0.414 / width, (top - above - height) / whole, 2.99 / width, height / whole)
        axes = figure.add_axes(box, facecolor="none", sharey=panels[0][0] if panels else None)
        if panel.title:
            axes.set_title(panel.title, loc="left", fontsize=8.5, color=MUTED)
        panels.append((axes, in_panel))
        top -= above + height + below
    return figure, panels


def draw(axes: Axes, lines: Sequence[Line]) -> None:
    for line in lines:
        if line.band:
            axes.fill_between(line.x, *line.band, color=line.shade, alpha=0.16, linewidth=0)
        axes.plot(line.x, line.y, color=line.shade, **line.style)
    axes.margins(x=0.02)


def line_style(arms: Sequence[str], arm: str) -> dict[str, Any]:
    if arm not in arms:
        return {"linewidth": 1.1, "linestyle": (0, (3, 2)), "marker": ".", "markersize": 4}
    marker = MARKERS[arms.index(arm) % len(MARKERS)]
    style: dict[str, Any] = {"linewidth": 1.6, "marker": marker, "markersize": 4.2}
    if later_lap(arms, arm):
        style |= {"linestyle": (0, (6, 1.5)), "markerfacecolor": "none"}
    return style


def label_all(panels: Sequence[tuple[Axes, Sequence[Line]]]) -> None:
    for axes, lines in panels:
        label_ends(axes, [(float(line.y[-1]), line.label, line.shade) for line in lines])


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write every line's name at its right end, pushed apart where lines meet."""
    if not ends:
        return
    gap = LETTERS * axes.figure.dpi / axes.bbox.height  # of the axes' height
    axes.autoscale_view()  # which else waits until the figure is drawn
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = sorted((float(to_axes.transform((1, y))[1]), name, shade) for y, name, shade in ends)
    heights = [height for height, _, _ in placed]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    surplus = heights[-1] - max(1.0, placed[-1][0])
    if surplus > 0:  # push back down from the top
        heights[-1] -= surplus
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = min(heights[i], heights[i + 1] - gap)
    for height, (end, name, shade) in zip(heights, placed, strict=True):
        axes.annotate(
            name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…",
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


def svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # texts stay texts in the file, and are shown in the reader's fonts
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    for fixed, variable in _PAGE_COLOURS.items():
        text = text.replace(fixed, variable)
    return text.strip()
