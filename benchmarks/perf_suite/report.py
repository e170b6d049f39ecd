"""`perf.md`, the table on the terminal and the plot, all from what `perf.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.report.sections.style import INK, MUTED, SERIES, STYLE, label_ends, standalone, svg

Results = Mapping[str, Any]

COLUMNS = (
    "memory", "first block, denoised", "first block, decoded", "block, window full",
    "growth in 100 blocks", "frames/s, denoising only", "frames/s, end to end",
    "bytes of the memory",
    "overhead: rollout less bare passes", "in one rollout, outside the network",
    "outside the transformer",
)  # fmt: skip


def table(results: Results) -> list[list[str]]:
    """The rows under `COLUMNS`, one a memory."""
    rows = []
    for name, one in results["memories"].items():
        first, rates = one["first_block_seconds"], one["frames_per_second"]
        overhead = one["overhead"] or {}
        outside = overhead.get("outside") or {}
        rows.append(
            [
                name,
                _seconds(first["denoised"]),
                _seconds(first["decoded"]),
                _seconds(one["settled_block_seconds"]),
                _growth(one["growth"]),
                _rate(rates["denoising"]),
                _rate(rates["end_to_end"]),
                _memory(one),
                _share(overhead.get("share")),
                *(_share(outside.get(name)) for name in ("passes", "transformer")),
            ]
        )
    return rows


def comparison(results: Results) -> tuple[list[str], list[list[str]]]:
    """Cached against recomputed attention: headings and rows."""
    headings = ["blocks", "latent frames", "cached", "recomputed", "times as long"]
    found = results["recomputed"] or {}
    rows = found.get("rows", [])
    chosen = [row for row in rows if row["blocks"] & (row["blocks"] - 1) == 0 or row is rows[-1]]
    return headings, [
        [
            str(row["blocks"]),
            str(row["frames"]),
            _seconds(row["cached_seconds"]),
            _seconds(row["recomputed_seconds"]),
            f"{row['ratio']['median']:.2f} ({row['ratio']['low']:.2f}–{row['ratio']['high']:.2f})",
        ]
        for row in chosen
    ]


def notes(results: Results) -> list[str]:
    """What a reader must know to read the tables; one sentence or two each."""
    s, hardware = results["settings"], results["provenance"]["hardware"]
    attention = s.get("attention", "native")  # older results have none
    load = [f"{one[0]:.1f}" for one in results["load_average"] if one]
    where = hardware.get("gpu") or f"{hardware['cpu']}, {hardware['threads']} thread(s)"
    weights = "random weights" if s["random"] else "trained weights"
    said = [
        f"Size {s['size']}, {results['parameters'] / 1e6:.3g} M parameters ({weights}), latents of "
        f"{' x '.join(str(n) for n in results['latent_shape'][2:])} a frame, {s['nfe']} steps a "
        f"block, {s['batch']} video(s) at a time, {s['precision']}"
        f"{'' if attention == 'native' else f', attention by {attention}'}"
        f"{', compiled' if s['compile'] else ''}; on {where}.",
        "Medians with quartiles of "
        f"{s['repetitions']} repetitions; growth and shares with 95% intervals, the share's of "
        f"{s['pairs']} pairs. Frames a second are decoded frames of each video after the first "
        "block; end to end is with decoding, and never without the memory write.",
        "Overhead: the time of a rollout less that of its bare network passes with the same inputs,"
        " as a share of the rollout. Measured within one rollout, which is less noisy: all outside "
        "of the network's forward; stricter, all outside of the transformer's in it, so that rotary"
        " tables and cache slots count too.",
    ]
    if results["clock"] == "processor":
        said.append(
            "Seconds are processor time of the one thread: on an idle machine, wall-clock time."
        )
    if load:
        said.append(
            f"Load average at the begin and end: {', '.join(load)} ({hardware['cores']} cores)."
        )
    compared = results["recomputed"]
    if compared and "error" in compared:
        said.append(f"Recomputed attention could not be measured: {compared['error']}.")
    elif compared:
        said.append(
            f"Cached (memory `{compared['memory']}`) and recomputed attention make the same video "
            f"up to {compared['difference']:.1e}."
        )
    return said


def markdown(results: Results) -> str:
    headings, rows = comparison(results)
    parts = ["# Speed and memory of generation", "", *_table(COLUMNS, table(results)), ""]
    if rows:
        parts += ["## Cached against recomputed attention", "", *_table(headings, rows), ""]
    parts += ["![Time and memory of blocks](perf.svg)", ""]
    parts += [f"- {note}" for note in notes(results)]
    return "\n".join(parts) + "\n"


def plot(results: Results) -> str:
    """Time of every block, bytes of the memories, cached against recomputed: an SVG file."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "perf"}):
        figure = Figure(figsize=(11.6, 2.9), facecolor="none")
        FigureCanvasSVG(figure)
        places = ((0.05, 0.185), (0.385, 0.185), (0.725, 0.175))
        panels = [figure.add_axes((x, 0.16, w, 0.7), facecolor="none") for x, w in places]
        for axes, title in zip(
            panels,
            ("ms a block, without decoding", "memory, MB", "ms a block, cached or recomputed"),
            strict=True,
        ):
            axes.set_title(title, loc="left", fontsize=8.5, color=INK)
            axes.set_xlabel("block")
            axes.margins(x=0.02)
        names = list(results["memories"])
        seconds: list[tuple[float, str, str]] = []
        sizes: list[tuple[float, str, str]] = []
        for place, (name, one) in enumerate(results["memories"].items()):
            shade = SERIES[place % len(SERIES)]
            seconds.append(_band(panels[0], one["block_seconds"], name, shade))
            size = np.array(one["memory_bytes"]) / 1e6
            panels[1].plot(range(1, len(size) + 1), size, color=shade, linewidth=1.5)
            sizes.append((float(size[-1]), name, shade))
        _finish(panels[0], seconds)
        _finish(panels[1], sizes)
        compared = results["recomputed"]
        if compared and "block_seconds" in compared:
            name = compared["memory"]
            count = len(compared["block_seconds"])
            shade = SERIES[names.index(name) % len(SERIES)]
            cached = results["memories"][name]["block_seconds"][:count]
            ends = [
                _band(panels[2], cached, "cached", shade),
                _band(panels[2], compared["block_seconds"], "recomputed", MUTED),
            ]
            _finish(panels[2], ends)
        else:
            panels[2].set_visible(False)
        return standalone(svg(figure))


def _band(
    axes: Axes, blocks: Sequence[Mapping[str, float]], name: str, shade: str
) -> tuple[float, str, str]:
    x = range(1, len(blocks) + 1)
    low, middle, high = (np.array([b[k] for b in blocks]) * 1e3 for k in ("low", "median", "high"))
    axes.fill_between(x, low, high, color=shade, alpha=0.16, linewidth=0)
    axes.plot(x, middle, color=shade, linewidth=1.3)
    return float(middle[-1]), name, shade


def _finish(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    axes.set_ylim(bottom=0)
    label_ends(axes, ends)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _seconds(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "–"
    scale, unit = (1e3, "ms") if value["median"] < 1 else (1.0, "s")
    low, middle, high = (_short(value[k] * scale) for k in ("low", "median", "high"))
    return f"{middle} {unit} ({low}–{high})"


def _rate(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{_short(value['median'])}"


def _growth(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    text = f"{100 * value['value']:+.1f}%"
    if value["low"] is None:
        return text
    noise = ", within noise" if value["within_noise"] else ""
    return f"{text} ({100 * value['low']:+.1f} to {100 * value['high']:+.1f}{noise})"


def _share(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    text = f"{100 * value['median']:.1f}%"
    if value["low"] is None:
        return text
    return f"{text} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"


def _memory(one: Mapping[str, Any]) -> str:
    sizes = one["memory_bytes"]
    if one["memory_constant"]:
        return f"{sizes[-1]:,} bytes, constant over {one['blocks']} blocks"
    return f"{sizes[0]:,} to {sizes[-1]:,} bytes after {one['blocks']} blocks"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
