"""Tables as files for other programs: CSV for spreadsheets, LaTeX (booktabs) for papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.model import Entry, Table, View
from benchmarks.study.metric_info import direction
from benchmarks.study.text import FileNames

ROW_COLUMNS = (
    "arm", "method", "backbone", "memory", "sampler", "nfe", "mean", "low", "high", "seed_sd",
    "prompt_se", "seeds", "prompts", "better", "winner",
    "not_finite",
)  # fmt: skip
COMPARISON_COLUMNS = (
    "metric", "backbone", "sampler", "nfe", "a", "b", "difference", "low", "high", "p",
    "clear", "favours", "better", "seeds", "paired_by_seed",
)  # fmt: skip
COST_COLUMNS = (
    "arm", "method", "backbone", "memory", "updates", "flops", "budget", "off_budget", "seconds",
)  # fmt: skip

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "\n": " ", "×": r"$\times$",
}  # fmt: skip


#: Tables that are not of one metric.
TABLES = ("comparisons.csv", "primary.csv", "costs.csv")


def write_tables(view: View, folder: Path, names: FileNames) -> None:
    """One CSV and one LaTeX file a metric, and CSV files of comparisons, outcomes and costs."""
    results = view.results
    for metric in view.metrics:
        rows = [row for row in results["rows"] if row["metric"] == metric["name"]]
        write_csv(folder / names.of(".csv", metric["name"]), ROW_COLUMNS, rows)
    for table in view.tables():
        name = names.of(".tex", table.metric["name"], table.setting.title(view.settings))
        (folder / name).write_text(latex(table), encoding="utf-8")
    write_csv(folder / "comparisons.csv", COMPARISON_COLUMNS, results["comparisons"])
    if results["primary"]:
        columns = ("verdict", "p_holm", "stated", *COMPARISON_COLUMNS, "length", "slope")
        write_csv(folder / "primary.csv", columns, results["primary"])
    if results["arms"]:
        roles = sorted({role for arm in results["arms"] for role in arm["passes"]})
        ways = [(role, way) for role in roles for way in ("forward", "backward")]
        costs = [
            {
                **arm,
                **{f"{role} {way}": arm["passes"].get(role, {}).get(way) for role, way in ways},
                "errors": "; ".join(f"seed {e['seed']}: {e['error']}" for e in arm["errors"]),
            }
            for arm in results["arms"]
        ]
        networks = [f"{role} {way}" for role, way in ways]
        write_csv(folder / "costs.csv", [*COST_COLUMNS, *networks, "errors"], costs)


def latex(table: Table) -> str:
    """Arms by NFE with their intervals; a winner in bold."""
    lines = [
        (line.label, line.reference, [line.single] if line.single else line.cells)
        for line in table.lines
    ]
    heads = [str(nfe) for nfe in table.nfes]
    return latex_rows(table.metric, "NFE", heads, lines, [table.decimals] * len(heads))


def latex_rows(
    metric: Entry,
    corner: str,
    heads: Sequence[str],
    lines: Sequence[tuple[str, bool, Sequence[Entry | None]]],
    places: Sequence[int],
) -> str:
    """A tabular of lines (label, whether a reference, cells); a lone cell spans the columns."""
    count = len(heads)
    text = [
        f"% {_latex(metric['name'])}, {direction(metric) or 'no direction'}",
        rf"\begin{{tabular}}{{l{'c' * count}}}",
        r"\toprule",
        " & ".join([corner, *map(_latex, heads)]) + r" \\",
        r"\midrule",
    ]
    for place, (label, reference, entries) in enumerate(lines):
        if place and reference and not lines[place - 1][1]:
            text.append(r"\midrule")
        cells = [_cell(entry, some) for entry, some in zip(entries, places, strict=False)]
        if len(cells) < count:
            cells = [rf"\multicolumn{{{count}}}{{c}}{{{cells[0]}}}"]
        text.append(" & ".join([_latex(label), *cells]) + r" \\")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}", ""])


def _cell(entry: Entry | None, places: int) -> str:
    if entry is None or entry["mean"] is None:
        return "--"
    mean = f"{entry['mean']:.{places}f}"
    mean = rf"\textbf{{{mean}}}" if entry["winner"] else mean
    if entry["low"] is None:
        return mean
    return rf"{mean} {{\small[{entry['low']:.{places}f}, {entry['high']:.{places}f}]}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Entry]) -> None:
    """A file of these columns; what else the rows hold is left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _plain(row.get(key)) for key in columns})
    path.write_text(text.getvalue(), encoding="utf-8")


def _plain(value: Any) -> Any:
    """A text that begins like a formula gets a quote in front, so that no spreadsheet runs it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
