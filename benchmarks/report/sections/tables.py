"""Tables as files for other programs: CSV for spreadsheets, LaTeX (booktabs) for papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.model.model import Table, View
from benchmarks.stats.model.entries import Entry, MetricEntry, ScoreRow
from benchmarks.study.text import FileNames

ROW_COLUMNS = (
    "arm", "method", "backbone", "memory", "sampler", "nfe", "mean", "low", "high", "seed_sd",
    "prompt_se", "seeds", "prompts", "direction", "winner", "not_finite",
)  # fmt: skip
COMPARISON_COLUMNS = (
    "metric", "backbone", "sampler", "nfe", "a", "b", "difference", "low", "high", "p",
    "significant", "better", "direction", "seeds", "paired_by_seed",
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
TABLES = ("comparisons.csv", "hypotheses.csv", "costs.csv")


def write_tables(view: View, folder: Path, names: FileNames) -> None:
    """One CSV and one LaTeX file a metric, and CSV files of comparisons, hypotheses and costs."""
    results = view.results
    for metric in view.metrics:
        rows = [_content(row) for row in results.rows if row.metric == metric.name]
        write_csv(folder / names.of(".csv", metric.name), ROW_COLUMNS, rows)
    for table in view.tables():
        name = names.of(".tex", table.metric.name, table.setting.title(view.settings))
        (folder / name).write_text(latex(table), encoding="utf-8")
    comparisons = [_content(comparison) for comparison in results.comparisons]
    write_csv(folder / "comparisons.csv", COMPARISON_COLUMNS, comparisons)
    if results.hypotheses:
        columns = ("verdict", "p_holm", "stated", *COMPARISON_COLUMNS, "length", "slope")
        hypotheses = [
            {**_content(entry), **(_content(entry.comparison) if entry.comparison else {})}
            for entry in results.hypotheses
        ]
        write_csv(folder / "hypotheses.csv", columns, hypotheses)
    if results.arms:
        roles = sorted({role for arm in results.arms for role in arm.passes})
        costs = [
            {
                **_content(arm),
                **{f"{r} forward": arm.passes[r].forward for r in roles if r in arm.passes},
                **{f"{r} backward": arm.passes[r].backward for r in roles if r in arm.passes},
                "errors": "; ".join(f"seed {e.seed}: {e.error}" for e in arm.errors),
            }
            for arm in results.arms
        ]
        networks = [f"{role} {way}" for role in roles for way in ("forward", "backward")]
        write_csv(folder / "costs.csv", [*COST_COLUMNS, *networks, "errors"], costs)


def _content(entry: Entry) -> dict[str, Any]:
    return dict(entry)


def latex(table: Table) -> str:
    """Arms by NFE with their intervals; a winner in bold."""
    lines = [
        (line.label, line.baseline, [line.single] if line.single else line.cells)
        for line in table.lines
    ]
    heads = [str(nfe) for nfe in table.nfes]
    return latex_rows(table.metric, "NFE", heads, lines, [table.decimals] * len(heads))


def latex_rows(
    metric: MetricEntry,
    corner: str,
    heads: Sequence[str],
    lines: Sequence[tuple[str, bool, Sequence[ScoreRow | None]]],
    places: Sequence[int],
) -> str:
    """A tabular of lines (label, whether a baseline, cells); a lone cell spans the columns."""
    count = len(heads)
    text = [
        f"% {_latex(metric.name)}, {metric.reading or 'no direction'}",
        rf"\begin{{tabular}}{{l{'c' * count}}}",
        r"\toprule",
        " & ".join([corner, *map(_latex, heads)]) + r" \\",
        r"\midrule",
    ]
    for index, (label, baseline, rows) in enumerate(lines):
        if index and baseline and not lines[index - 1][1]:
            text.append(r"\midrule")
        cells = [_cell(row, digits) for row, digits in zip(rows, places, strict=False)]
        if len(cells) < count:
            cells = [rf"\multicolumn{{{count}}}{{c}}{{{cells[0]}}}"]
        text.append(" & ".join([_latex(label), *cells]) + r" \\")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}", ""])


def _cell(row: ScoreRow | None, places: int) -> str:
    if row is None or row.mean is None:
        return "--"
    mean = f"{row.mean:.{places}f}"
    mean = rf"\textbf{{{mean}}}" if row.winner else mean
    if row.low is None:
        return mean
    return rf"{mean} {{\small[{row.low:.{places}f}, {row.high:.{places}f}]}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A file of these columns; other keys of the rows are left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _plain(row.get(key)) for key in columns})
    path.write_text(text.getvalue(), encoding="utf-8")


def _plain(value: Any) -> Any:
    """A text that begins like a formula gets a quote in front, so that no spreadsheet runs it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
