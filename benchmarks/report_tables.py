"""Tables as files for other programs: CSV for spreadsheets, LaTeX (booktabs) for papers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report_view import Entry, Table, View

ROW_COLUMNS = (
    "arm", "method", "backbone", "memory", "sampler", "nfe", "mean", "low", "high", "seed_sd",
    "prompt_se", "seeds", "prompts", "better", "winner",
)  # fmt: skip
COMPARISON_COLUMNS = (
    "metric", "backbone", "sampler", "nfe", "a", "b", "difference", "low", "high", "clear",
    "favours", "better", "seeds", "paired_by_seed",
)  # fmt: skip
COST_COLUMNS = ("arm", "method", "backbone", "memory", "updates", "flops", "seconds")

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "\n": " ",
}  # fmt: skip


def write_tables(view: View, folder: Path) -> None:
    """One CSV and one LaTeX file a metric, and CSV files of comparisons, outcomes and costs."""
    results = view.results
    for metric in view.metrics:
        rows = [row for row in results["rows"] if row["metric"] == metric["name"]]
        _write_csv(folder / f"{slug(metric['name'])}.csv", ROW_COLUMNS, rows)
    for table in view.tables():
        setting = slug(table.setting.title(view.settings))
        name = slug(table.metric["name"]) + (f"-{setting}" if setting else "")
        (folder / f"{name}.tex").write_text(latex(table), encoding="utf-8")
    _write_csv(folder / "comparisons.csv", COMPARISON_COLUMNS, results["comparisons"])
    if results["primary"]:
        _write_csv(folder / "primary.csv", ["verdict", *COMPARISON_COLUMNS], results["primary"])
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
        _write_csv(folder / "costs.csv", [*COST_COLUMNS, *networks, "errors"], costs)


def latex(table: Table) -> str:
    """Arms by NFE with their intervals; a winner in bold."""
    count, places = len(table.nfes), table.decimals
    lines = [
        f"% {_latex(table.metric['name'])}, {table.metric['better']} is better",
        rf"\begin{{tabular}}{{l{'c' * count}}}",
        r"\toprule",
        " & ".join(["NFE", *map(str, table.nfes)]) + r" \\",
        r"\midrule",
    ]
    for place, line in enumerate(table.lines):
        if place and line.reference and not table.lines[place - 1].reference:
            lines.append(r"\midrule")
        if line.single:
            cells = [rf"\multicolumn{{{count}}}{{c}}{{{_cell(line.single, places)}}}"]
        else:
            cells = [_cell(cell, places) for cell in line.cells]
        lines.append(" & ".join([_latex(line.label), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


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


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Entry]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _plain(row.get(key)) for key in columns})
    path.write_text(text.getvalue(), encoding="utf-8")


def _plain(value: Any) -> Any:
    """A text that begins like a formula gets a quote in front, so that no spreadsheet runs it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
