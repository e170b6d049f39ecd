"""`salt-zoo list`: what is registered, by whom, and which plugins are broken."""

from __future__ import annotations

import argparse
import json

from salt_zoo.io.printing import show, visible
from salt_zoo.plugin.manager import Zoo

NAME = "list"
HELP = "list registered methods, backbones, metrics, ..., and plugins that failed to load"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    content: dict[str, list[dict[str, str]]] = {
        registry.plural: [
            {"name": entry.name, "plugin": entry.plugin, "summary": entry.summary}
            for entry in registry
        ]
        for registry in zoo.registries
    }
    content["broken"] = [{"plugin": b.plugin, "reason": b.reason} for b in zoo.broken]
    if options.json:
        show(json.dumps(content, indent=1))
        return 0
    from rich.table import Table
    from rich.text import Text

    from salt_zoo.io.consoles import ResultsConsole

    console = ResultsConsole()
    # `list` imports no part; what a part declares is told where it is loaded
    more = {"metrics": "metrics (direction, kind and options: salt-zoo show metric NAME)"}
    for kind, rows in content.items():
        if not rows:
            continue
        table = Table(title=more.get(kind, kind), title_justify="left", box=None, pad_edge=False)
        for column in rows[0]:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(
                *(Text(visible(value)) for value in row.values())
            )  # Text: no markup from plugins
        console.print(table)
        console.print()
    return 0
