"""A section of a study's report: whether the cache is a condition whose quality depends on how it
was made, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TITLE = "Does the cache depend on how it was made, and does it matter?"

#: A row of results.json.
Row = Mapping[str, Any]


def cache_section(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The section `(title, text)` of a study that measured `cache-distance` and its fellows.

    Empty where no network with a memory was measured by `cache-distance`.
    """
    few, middle = _networks(results, "cache-distance"), _networks(results, "cache-distance-4")
    if not few:
        return []
    parts = [
        "Each network makes the same videos from the same noise, along its velocity, once with 2, "
        "once with 4 and once with 8 steps a block. Compared is what the memory holds before the "
        "last block: the L2 distance of keys and values, relative to the memory of 8 steps. "
        "Intervals are 95%; all networks are in the tables of these metrics.",
        f"Memories of 2 steps differ from those of 8 by {_range(few)}.",
    ]
    if middle:
        parts[-1] += f" Memories of 4 steps differ by {_range(middle)}."
        shared = [name for name in few if name in middle]
        against = [n for n in shared if few[n]["mean"] <= middle[n]["mean"]]
        if against:
            parts[-1] += f" Those of 4 steps are no nearer for {', '.join(against)}."
        else:
            parts[-1] += f" For all {len(shared)} networks those of 4 steps are the nearer ones."
    for where in ("first", "last"):
        layer = _networks(results, f"cache-distance-{where}")
        if layer:
            parts.append(f"In the {where} layer memories of 2 steps differ by {_range(layer)}.")
    changed = _networks(results, "cache-sensitivity")
    if changed:
        parts.append(
            "The last block, made with 8 steps from the same noise, changes by "
            f"{_range(changed)} of its norm when its memory was made by 2 steps instead of 8."
        )
    return [(TITLE, "\n\n".join(parts))]


def _networks(results: Mapping[str, Any], metric: str) -> dict[str, Row]:
    """The rows of a metric by network; those without a memory have no value."""
    rows = [r for r in results["rows"] if r["metric"] == metric and r["mean"] is not None]
    several = len({row["backbone"] for row in rows}) > 1
    return {f"{row['arm']} ({row['backbone']})" if several else row["arm"]: row for row in rows}


def _range(rows: Mapping[str, Row]) -> str:
    """The smallest and the largest value, each with its network."""
    order: Sequence[str] = sorted(rows, key=lambda name: rows[name]["mean"])
    ends = [order[0]] if len(order) == 1 else [order[0], order[-1]]
    return " to ".join(f"{_value(rows[name])} ({name})" for name in ends)


def _value(row: Row) -> str:
    known = row["low"] is not None and row["high"] is not None
    interval = f" [{row['low']:.1%}, {row['high']:.1%}]" if known else ""
    return f"{row['mean']:.1%}{interval}"
