"""`python -m benchmarks.report DIR`: a report rendered again from its folder, without training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from salt_zoo.cli import add_plugin_option, guarded, interruptible, with_plugins
from salt_zoo.cli.arguments import Parser
from salt_zoo.io.files.one_writer import one_writer
from salt_zoo.io.printing import show
from salt_zoo.plugin.manager import Zoo


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m benchmarks.report",
        description="Render a study's report again from what is in its folder.",
    )
    parser.add_argument("folder", type=Path, help="the report's folder, as in reports/digits")
    parser.add_argument(
        "--study",
        help="a study's file or name: take title, description, hypotheses, claims, primary metric "
        "and tuning from it",
    )
    add_plugin_option(parser)
    options = parser.parse_args(arguments)

    def render_alone(given: argparse.Namespace, zoo: Zoo) -> int:
        from benchmarks.stats.results_file import read_results  # imports pandas

        read_results(given.folder)  # a folder without any is not to be touched
        with one_writer(given.folder):
            return rerender(given.folder, zoo, given.study)

    return guarded(lambda: with_plugins(render_alone, options))


def rerender(folder: Path, zoo: Zoo, file: str | None = None) -> int:
    """Write results.json, index.html, report.md, `tables` and `figures` of a folder again.

    `file` and errors are those of `benchmarks.report.again.analyse_again`.
    """
    # these import torch, which takes seconds: Ctrl-C is listened to already
    from benchmarks.report.again import analyse_again
    from benchmarks.report.build import render
    from benchmarks.stats.results_file import write_json

    results, videos = analyse_again(folder, zoo, file)
    write_json(results, folder)
    extra = zoo.hook.report_sections(results=results.to_json(), folder=folder)
    sections = [section for of_plugin in extra for section in of_plugin or ()]
    render(results, videos, folder, sections)
    show(folder / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
